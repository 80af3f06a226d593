"""Read exported networks in the three formats, without their checkpoint."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_cifar import models
from lightning_cifar.errors import UsageError, did_you_mean, one_line

Format = Literal["safetensors", "onnx", "pt2"]
Run = Callable[[Tensor], Tensor]


class Portable(nn.Module):
    """A classifier with the normalization of its images, in evaluation mode.

    The input is images float32 (N, C, H, W) with values in [0, 1], the output logits (N, num_classes).

    Args:
        classifier: Network, which is not copied.
        class_names: Name of each output.
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel.
        facts: Further information by name.
    """

    def __init__(
        self,
        classifier: nn.Module,
        *,
        class_names: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.class_names, self.facts = tuple(class_names), dict(facts or {})
        self.mean: Tensor
        self.std: Tensor
        for name, values in {"mean": mean, "std": std}.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier((images - self.mean) / self.std)
        return logits


def open_file(format: Format, path: Path, model_class: type[models.Classifier] | None = None) -> Run:
    """Open a file in the runtime of its format, as a function images float32 (N, C, H, W) in [0, 1] -> logits (N, K).

    Raises:
        UsageError: If a safetensors file is damaged or was not written by this package.
        ImportError: If the runtime is not installed.
    """
    with quiet():
        match format:
            case "safetensors":
                return load_safetensors(path, model_class)
            case "pt2":
                run: Run = torch.export.load(path).module()
                return run
            case "onnx":
                return _open_onnx(path)


def _open_onnx(path: Path) -> Run:
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]

    onnxruntime.set_default_logger_severity(3)  # only errors, no warnings about missing devices
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def load_safetensors(path: Path | str, model_class: type[models.Classifier] | None = None) -> Portable:
    """Load a network from a file of ``lightning-cifar export --format safetensors``, without its checkpoint.

    Nothing in the file is executed, and no module that it names is imported.

    Args:
        path: Path of the file.
        model_class: Class of a network that is not part of this package.

    Returns:
        A module in evaluation mode on the CPU: images float32 (N, C, H, W) in [0, 1] -> logits (N, num_classes).

    Raises:
        UsageError: If the file is damaged, was not written by this package, or contains another network.
        OSError: If it cannot be read.

    Example::

        network = lightning_cifar.load_safetensors("runs/lenet/export/best.safetensors")
        probabilities = network(images).softmax(1)
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise UsageError("safetensors is not installed: pip install 'lightning-cifar[export]'.") from error
    try:
        with safe_open(str(path), framework="pt") as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a dictionary
        facts: dict[str, Any] = {name: json.loads(text) for name, text in texts.items()}
    except OSError:
        raise
    except Exception as error:  # SafetensorError, or an error of JSON
        raise UsageError(
            f"{path} is not a readable safetensors file, or is damaged: {one_line(error)[:120]}"
        ) from error
    missing = [name for name in ("model", "hyper_parameters", "class_names", "mean", "std") if name not in facts]
    if missing:
        raise UsageError(f"{path} was not written by lightning-cifar export: it does not state {', '.join(missing)}.")
    network = _build(path, facts, model_class)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = one_line(error)[:160]
        raise UsageError(f"the weights in {path} do not fit {facts['model']}: {reason} ...") from error
    return Portable(
        network, class_names=facts["class_names"], mean=facts["mean"], std=facts["std"], facts=facts
    ).requires_grad_(False)


def _build(path: Path | str, facts: Mapping[str, Any], model_class: type[models.Classifier] | None) -> nn.Module:
    """Build the network with initial weights. Only classes of this package are found by their name."""
    name = str(facts["model"])
    known = model_class or (getattr(models, name) if name in models.__all__ else None)
    if known is None or not issubclass(known, models.Classifier):
        hint = did_you_mean(name, models.__all__) or " Pass its class as model_class."
        raise UsageError(f"{path} contains {name}, which is not a classifier of this package.{hint}")
    settings = dict(facts["hyper_parameters"])
    if "weights" in settings:
        settings["weights"] = None  # the file contains all weights: do not download any
    try:
        return known(**settings)
    except (TypeError, ValueError) as error:
        detail = one_line(error)[:160]
        raise UsageError(f"{path} does not fit {name} of this version of the package: {detail} ...") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress messages of the exporters about their internals; the file is checked by running it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
