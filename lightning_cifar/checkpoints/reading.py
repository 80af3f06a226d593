"""Read checkpoints without executing code in them."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_cifar.configuration import parse_configuration
from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.files.checksums import DamagedError, read_verified

RUN_ID = "run_id"  # in checkpoints: the ID of their run
CONFIG_KEY = "lightning_cifar_config"  # in checkpoints: the configuration as YAML text


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is read and checked once for a command."""

    path: Path
    content: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a checkpoint without executing code in it.

        Raises:
            UsageError: If the file is not a checkpoint, is damaged, or contains other objects than plain values and
                tensors.
        """
        try:
            content = torch.load(io.BytesIO(read_verified(path)), map_location="cpu", weights_only=True)
        except DamagedError as error:
            raise UsageError(f"{error}{_good_ones(path)}") from error
        except Exception as error:  # the type depends on the version of torch
            detail = one_line(error).split(". ", 1)[0][:160]
            if path.is_file() and not path.stat().st_size:
                detail = "the file is empty"
            raise UsageError(f"{path} is not a readable checkpoint, or is damaged: {detail}") from error
        if not isinstance(content, dict) or not _is_state(content.get("state_dict")):
            raise UsageError(f"{path} is not a checkpoint of a LightningModule.")
        held = content.get("hyper_parameters", {})
        if not isinstance(held, dict) or not all(isinstance(name, str) for name in held):
            raise UsageError(f"{path} is not a checkpoint of a LightningModule: its settings have no names.")
        return cls(path, content)

    def load_into(self, model: nn.Module, target: str) -> None:
        """Load the weights into a network, which the error calls ``target``.

        Raises:
            UsageError: If the network has other layers.
        """
        try:
            model.load_state_dict(self.content["state_dict"])
        except (RuntimeError, TypeError, AttributeError) as error:
            detail = one_line(str(error).split("\n", 1)[-1])[:160]  # after a line with the class
            raise UsageError(f"{self.path} does not fit {target}: {detail} ...") from error

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Hyper-parameters of the model, without those of Lightning's command line, which start with an underscore."""
        held: dict[str, Any] = self.content.get("hyper_parameters", {})
        return {name: value for name, value in held.items() if not name.startswith("_")}

    @cached_property
    def config(self) -> dict[str, Any]:
        """Configuration of the run as plain values. It is not trusted, see ``settings``.

        Raises:
            UsageError: If it is not YAML text of plain values.
        """
        text = self.content.get(CONFIG_KEY) or ""
        if not isinstance(text, str):
            raise UsageError(f"{self.path}: its configuration is a {type(text).__name__}, not text.")
        return parse_configuration(f"the configuration in {self.path}", text) if text else {}

    @property
    def progress(self) -> dict[str, int]:
        """Numbers of trained ``epochs`` and ``steps``, if the checkpoint contains them."""
        done = {"steps": self.content.get("global_step")}
        with suppress(KeyError, TypeError):
            # Includes the epoch in which the checkpoint was written after a validation.
            epochs = self.content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            done = {"epochs": epochs, **done}
        return {unit: number for unit, number in done.items() if isinstance(number, int)}


def _is_state(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _good_ones(path: Path) -> str:
    """Return a hint that names the undamaged checkpoints in the same folder."""
    good = []
    for other in sorted(path.parent.glob("*.ckpt")):
        try:
            read_verified(other)
        except (DamagedError, OSError):
            continue
        good.append(other.name)
    return f" Undamaged in its folder: {', '.join(good)}." if good else ""
