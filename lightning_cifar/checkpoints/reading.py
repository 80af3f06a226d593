"""Checkpoints that bring their configuration, read without executing anything in them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_cifar.configuration import check_text
from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.files.checksums import DamagedError, read_verified

CONFIG_KEY = "lightning_cifar_config"  # in checkpoints: the configuration as YAML text


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; nothing in it is executed.

    Raises:
        UsageError: If the file is not a checkpoint, damaged, or holds more than plain values.
    """
    try:
        content = torch.load(io.BytesIO(read_verified(path)), map_location="cpu", weights_only=True)
    except DamagedError as error:
        raise UsageError(f"{error}{_good_ones(path)}") from error
    except Exception as error:  # torch raises what its reader of the day raises
        detail = one_line(error).split(". ", 1)[0][:160]
        if not path.stat().st_size:
            detail = "the file is empty"
        raise UsageError(f"{path} is not a readable checkpoint, or is damaged: {detail}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UsageError(f"{path} is not a checkpoint of a LightningModule.")
    return content


def progress_of(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """How many ``epochs`` and ``steps`` were trained; what a checkpoint does not say is left out."""
    done = {"steps": checkpoint.get("global_step")}
    with suppress(KeyError, TypeError):
        # Those that count when it is loaded: the epoch in which the validation found it best is among them.
        done = {"epochs": checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"], **done}
    return {unit: number for unit, number in done.items() if isinstance(number, int)}


def _good_ones(path: Path) -> str:
    """A hint at checkpoints in the same folder that are whole."""
    good = []
    for other in sorted(path.parent.glob("*.ckpt")):
        try:
            read_verified(other)
        except (DamagedError, OSError):
            continue
        good.append(other.name)
    return f" Good ones in its folder: {', '.join(good)}." if good else ""


def with_checkpoint_config(words: list[str]) -> list[str]:
    """Put the configuration that a checkpoint brings in front of the words, so that every explicit option beats it.

    ``fit`` takes all of it and goes on training; the other commands take the seed, the model and the data.
    """
    path = next((word.split("=", 1)[-1] for word in words if word.startswith("--ckpt_path=")), None)
    if "--ckpt_path" in words[:-1]:
        path = words[words.index("--ckpt_path") + 1]
    if path is None or not Path(path).is_file():
        return words
    checkpoint = read_checkpoint(Path(path))
    config = _config_of(path, checkpoint)
    if words[0] != "fit":
        config = {key: config[key] for key in ("seed_everything", "model", "data") if key in config}
    if outside := _outside(config.get("trainer"), Path(path), "trainer"):
        if not any(word.split("=")[0] in ("-c", "--config") for word in words):
            raise UsageError(f"{path} would have files written outside the run folder ({outside}): pass --config too.")
        del config["trainer"]  # the user's own says where
    model = config.get("model")
    settings = model.get("init_args") if isinstance(model, dict) else None
    held = checkpoint.get("hyper_parameters", {})
    if not isinstance(held, dict):
        raise UsageError(f"{path} is not a checkpoint of a LightningModule: its settings have no names.")
    for name, value in held.items():
        if settings and name in settings:  # what the model had in the end: a found learning rate, say
            settings[name] = list(value) if isinstance(value, tuple) else value
    if "model" not in config and "class_path" in checkpoint:
        config["model"] = {"class_path": checkpoint["class_path"], "init_args": dict(held)}
    try:
        text = yaml.safe_dump(config)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path} holds settings that are no plain values: pass --config instead.") from error
    return [words[0], "--config", text, *words[1:]] if config else words


def _config_of(path: str, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The configuration that a checkpoint brings, plain values alone."""
    text = checkpoint.get(CONFIG_KEY) or "{}"
    if not isinstance(text, str):
        raise UsageError(f"{path}: its configuration is no text.")
    check_text(f"the configuration in {path}", text)
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def _outside(value: object, checkpoint: Path, where: str) -> str:
    """The first text that leads out of the folder of the run, which is the only one that a checkpoint may name."""
    if isinstance(value, str):
        if not ("/" in value and (value.startswith("/") or ".." in Path(value).parts)) and value != "..":
            return ""
        folder = checkpoint.resolve().parent
        own = folder.parent if folder.name == "checkpoints" else folder
        return "" if Path(value).resolve().is_relative_to(own) else f"{where}: {value[:100]}"
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next(filter(None, (_outside(item, checkpoint, f"{where}.{key}") for key, item in items)), "")
