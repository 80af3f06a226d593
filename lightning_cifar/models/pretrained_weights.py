"""Loading of published weights and of files into torchvision's networks."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from lightning_cifar.errors import did_you_mean, one_line

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and std per channel of images in [0, 1], used in the training of torchvision's published weights."""

TIMEOUT = 30.0
"""Timeout of a download in seconds; torch sets none."""

_OPTIONAL = "num_batches_tracked"  # missing in older files, and not used


def build_network(
    arch: str, weights: str | None, *, num_classes: int, heads: Sequence[str], new_head: bool
) -> nn.Module:
    """Build a network of torchvision with weights from a file or random weights.

    Args:
        arch: Torchvision's name of the network.
        weights: ``default``, torchvision's name of weights, a local file, or None for random weights.
        num_classes: Number of outputs of the last layers.
        heads: Names of the last layers.
        new_head: Initialise the last layers randomly instead of loading them.

    Raises:
        ValueError: If the weights are unknown, or the file is damaged, has another network, or does not match its hash.
        OSError: If the weights are not in the cache and cannot be downloaded.
    """
    if weights is None:
        return _make(arch, num_classes)
    source, state = read_weights(arch, weights)
    with torch.device("meta"):  # without initialising weights that are replaced
        network = _make(arch, num_classes)
    _load(network, state, arch=arch, source=source, heads=heads if new_head else ())
    if new_head:
        for name in heads:
            head: Any = network.get_submodule(name)
            head.to_empty(device="cpu").reset_parameters()
    return network


def published(arch: str, name: str) -> WeightsEnum | None:
    """Return torchvision's weights by name, with or without the name of their class; None if there are none."""
    known = torchvision.models.get_model_weights(arch)
    return known.DEFAULT if name == "default" else known.__members__.get(name.removeprefix(f"{known.__name__}."))


def read_weights(arch: str, weights: str) -> tuple[str, dict[str, Tensor]]:
    """Return the path of weights, and the weights by torchvision's names. Code in the file is not executed.

    Raises:
        ValueError: If the weights are unknown, or the file is damaged or does not match its hash.
        OSError: If they are not in the cache and cannot be downloaded.
    """
    entry = published(arch, weights)
    if entry is not None:
        path = cached_file(entry)
        with _explained(arch, entry, path):
            if path.is_file():
                _check_hash(path)
            content = torch.hub.load_state_dict_from_url(
                entry.url, map_location="cpu", progress=True, check_hash=True, weights_only=True
            )
        return str(path), _state_of(path, content)
    path = Path(weights).expanduser()
    if not path.is_file():
        names = [entry.name for entry in torchvision.models.get_model_weights(arch)]
        raise ValueError(
            f"weights (={weights}) is neither a file nor the name of weights of {arch}."
            f"{did_you_mean(weights, ['default', *names])} Names are default, {', '.join(names)}, and null for none."
        )
    return str(path), _state_of(path, _read(path))


def cached_file(entry: WeightsEnum) -> Path:
    """Return the path of published weights in torch's cache."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name


def _make(arch: str, num_classes: int) -> nn.Module:
    # Inception warns if the argument is missing.
    settings = {"init_weights": True} if arch == "inception_v3" else {}
    network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **settings)
    return network


def _read(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch does not document which
        detail = one_line(error).split(". ", 1)[0][:120]
        raise ValueError(f"{path} is damaged, or not a file of weights: {detail}") from error


def _state_of(path: Path, content: object) -> dict[str, Tensor]:
    """Return the weights in the content of a state dict or of a checkpoint."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"{path} does not contain weights by name: pass a state dict of torchvision, or the checkpoint of a run."
        )
    state = {str(name): value for name, value in content.items()}
    for prefix in ("network.", "module."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


@contextlib.contextmanager
def _explained(arch: str, entry: WeightsEnum, path: Path) -> Iterator[None]:
    """Set a timeout, and raise one-line errors for a published file."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    except OSError as error:  # includes the errors of urllib
        reason = one_line(getattr(error, "reason", error))
        raise OSError(
            f"the weights of {arch} could not be downloaded ({reason}): download {entry.url} and save it as {path}"
        ) from error
    except RuntimeError as error:
        if "invalid hash" not in str(error):
            raise ValueError(f"{path} is damaged: delete it and try again ({one_line(error)[:100]})") from error
        raise ValueError(f"the file at {entry.url} does not match the hash in its name: {one_line(error)}") from error
    finally:
        socket.setdefaulttimeout(timeout)


def _check_hash(path: Path) -> None:
    """Check a file in the cache: torch checks the hash only in a download."""
    found = torch.hub.HASH_REGEX.search(path.name)
    if found is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(found[1]):
        raise ValueError(
            f"{path} is damaged or another file: its SHA-256 begins with {digest[:8]}, but its name contains "
            f"{found[1]}: delete it and try again"
        )


def _load(network: nn.Module, state: dict[str, Tensor], *, arch: str, source: str, heads: Sequence[str]) -> None:
    """Load the weights into a network on the meta device, except those of the heads."""
    kept = {name: value for name, value in state.items() if name.rpartition(".")[0] not in heads}
    wanted = {name: value for name, value in network.state_dict().items() if name.rpartition(".")[0] not in heads}
    problem = _difference(wanted, kept)
    if problem is not None:
        fits = [other for other in _ARCHS if other != arch and _fits(other, state)]
        hint = f" (it fits {' and '.join(fits)})" if fits else ""
        raise ValueError(f"{source} contains weights of another network than {arch}{hint}: {problem}")
    network.load_state_dict(kept, strict=False, assign=True)


def _difference(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> str | None:
    for name, value in wanted.items():
        if name not in given and not name.endswith(_OPTIONAL):
            return f"{name} is missing"
        if name in given and given[name].shape != value.shape:
            return f"{name} is {_size(given[name])}, not {_size(value)}"
    return next((f"{name} is not a weight of the network" for name in given if name not in wanted), None)


def _size(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"


_ARCHS = torchvision.models.list_models(include=["alexnet", "inception_v3", "squeezenet*", "resnet*", "vgg*"])


def _fits(arch: str, state: dict[str, Tensor]) -> bool:
    """Return True if the weights fit the network, apart from the number of classes."""
    with torch.device("meta"):
        wanted = _make(arch, 1000).state_dict()
    names = {name for name in wanted if not name.endswith(_OPTIONAL)}
    if names != {name for name in state if not name.endswith(_OPTIONAL)}:
        return False
    return all(wanted[name].shape[1:] == state[name].shape[1:] for name in names)
