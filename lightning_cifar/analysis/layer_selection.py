"""Selection of the layers to observe, in one network or in several that are trained together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from torch import nn

from lightning_cifar.analysis.layers import find_layer

Item = TypeVar("Item")

Side: TypeAlias = Literal["input", "output"]
_MOST = 4  # layers that are selected by default


class Tap(NamedTuple):
    """The input or the output of a layer of a network."""

    network: str
    layer: str
    side: Side


class SelectedLayers(NamedTuple):
    """Corresponding layers of the networks, which are drawn over each other."""

    title: str
    taps: list[Tap]
    labels: list[str]
    """One label for each tap."""


def select_layers(
    networks: Mapping[str, nn.Module],
    layers: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    side: Side | Literal["both"] | None = None,
) -> list[SelectedLayers]:
    """Select the layers to observe.

    Args:
        networks: One or more networks by name.
        layers: Names of layers that every network has, or a list of names for each network; names at the same position
            correspond to each other. None selects up to four, evenly spread: batch norms and dropouts of a single
            network, or its activation functions if it has neither, and the activation functions of several networks.
        side: Side of the layers to observe. None is both for one network; for several it is the input of an activation
            function (the value after a batch norm if there is one, else the pre-activation), and the output of others.

    Raises:
        ValueError: A layer or network does not exist, there is no layer to select, or numbers of layers differ.
    """
    names = _names(networks, layers)
    counts = {name: len(found) for name, found in names.items()}
    if len(set(counts.values())) > 1:
        numbers = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(f"each network must have the same number of layers to compare, but there are {numbers}")
    indices = list(range(next(iter(counts.values()))))
    selected = []
    for index in indices if layers is not None else _evenly(indices, _MOST):
        taps = []
        for network, found in names.items():
            layer = find_layer(networks[network], found[index])
            default: Side = "input" if _is_activation(layer) else "output"
            wanted = side or ("both" if len(networks) == 1 else default)
            sides: list[Side] = ["input", "output"] if wanted == "both" else [wanted]
            taps += [Tap(network, found[index], each) for each in sides]
        selected.append(_describe(networks, taps))
    return selected


def _names(
    networks: Mapping[str, nn.Module],
    layers: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None,
) -> dict[str, list[str]]:
    """Return the names of the layers of each network."""
    if layers is None:
        if len(networks) == 1:
            found = {name: _norms_and_dropouts(network) for name, network in networks.items()}
        if len(networks) > 1 or not any(found.values()):
            found = {name: _of_kind(network, _is_activation) for name, network in networks.items()}
        if not any(found.values()):
            kinds = ", ".join(sorted({type(network).__name__ for network in networks.values()}))
            raise ValueError(f"{kinds} has no batch norm, dropout or activation layer to observe: name `layers`")
        return found
    if not isinstance(layers, Mapping):
        layers = dict.fromkeys(networks, layers)
    elif unknown := [name for name in layers if name not in networks]:
        known = f"there are {', '.join(networks)}" if len(networks) > 1 else "there is one network: pass a plain list"
        raise ValueError(f"layers are given for {unknown[0]!r}, which is not a member: {known}")
    found = {name: [value] if isinstance(value, str) else list(value) for name, value in layers.items()}
    if not found or not all(found.values()):
        raise ValueError("layers is empty: name at least one, or leave it out")
    return found


def _norms_and_dropouts(network: nn.Module) -> list[str]:
    """Select at most four batch norms and dropouts, some of both, in the order of the network."""
    norms = _of_kind(network, lambda layer: isinstance(layer, nn.modules.batchnorm._BatchNorm))
    dropouts = _of_kind(network, lambda layer: isinstance(layer, nn.modules.dropout._DropoutNd))
    half = min(len(norms), max(_MOST // 2, _MOST - len(dropouts)))
    chosen = {*_evenly(norms, half), *_evenly(dropouts, _MOST - half)}
    return [name for name, _ in network.named_modules() if name in chosen]


def _of_kind(network: nn.Module, is_it: Callable[[nn.Module], bool]) -> list[str]:
    return [name for name, layer in network.named_modules() if name and is_it(layer)]


def _evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Select at most ``most`` items at even distances, with the first and the last."""
    if len(items) <= most or most < 2:
        return list(items[:most])
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _is_activation(layer: nn.Module) -> bool:
    """Whether the layer is one of torch's pointwise activation functions."""
    others = nn.MultiheadAttention | nn.Softmax | nn.Softmax2d | nn.LogSoftmax | nn.Softmin
    return type(layer).__module__ == nn.ReLU.__module__ and not isinstance(layer, others)


def _describe(networks: Mapping[str, nn.Module], taps: list[Tap]) -> SelectedLayers:
    texts = [f"{tap.layer} ({type(find_layer(networks[tap.network], tap.layer)).__name__})" for tap in taps]
    words = {"input": "into", "output": "out of"}
    side = f"{words[taps[0].side]} " if len({tap.side for tap in taps}) == 1 else ""
    title = side + " / ".join(dict.fromkeys(texts))
    if len(networks) == 1:
        labels = [{"input": "before", "output": "after"}[tap.side] for tap in taps]
    elif side and len(set(texts)) == 1:
        labels = [tap.network for tap in taps]
    else:
        labels = [f"{tap.network}: {words[tap.side]} {text}" for tap, text in zip(taps, texts, strict=True)]
    return SelectedLayers(title, taps, labels)
