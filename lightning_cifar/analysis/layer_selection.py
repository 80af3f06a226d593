"""Which layers of one network, or of several that are trained together, to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from torch import nn

from lightning_cifar.analysis.layers import find_layer

Item = TypeVar("Item")

Side: TypeAlias = Literal["input", "output"]


class Tap(NamedTuple):
    """What is looked at: a layer of a network, by names, and what enters or leaves it."""

    network: str
    layer: str
    side: Side


class Place(NamedTuple):
    """Taps that belong together, and are drawn over each other."""

    title: str
    taps: list[Tap]
    labels: list[str]
    """One for each tap, to tell it from the others."""


def choose_places(
    networks: Mapping[str, nn.Module],
    layers: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    side: Side | Literal["both"] | None = None,
    most: int = 4,
) -> list[Place]:
    """Which layers to look at.

    Args:
        networks: One or more, by name.
        layers: Names of layers, to be found in each network; or for each network its own, which belong together in
            their order. None is, for one network, its batch norms and dropouts, or else its activation functions; for
            several the activation functions, which belong together in the order in which the networks define them.
        side: What of them to look at. None is both for one network; for several it is the input of an activation
            function (the value after a batch norm where there is one, the plain pre-activation where not), and the
            output otherwise.
        most: How many places there are at most if ``layers`` is None, at least 2: evenly chosen, and of batch norms
            and dropouts some of both.

    Raises:
        ValueError: There is no such layer or network, no layer to choose, or numbers of layers that do not pair.
    """
    names = _names(networks, layers, most)
    counts = {name: len(found) for name, found in names.items()}
    if len(set(counts.values())) > 1:
        numbers = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(f"layers that belong together must be as many in each network, and there are {numbers}")
    indices = list(range(next(iter(counts.values()))))
    places = []
    for index in indices if layers is not None else _evenly(indices, most):
        taps = []
        for network, found in names.items():
            layer = find_layer(networks[network], found[index])
            own: Side = "input" if _is_activation(layer) else "output"
            wanted = side or ("both" if len(networks) == 1 else own)
            sides: list[Side] = ["input", "output"] if wanted == "both" else [wanted]
            taps += [Tap(network, found[index], each) for each in sides]
        places.append(_describe(networks, taps))
    return places


def _names(
    networks: Mapping[str, nn.Module],
    layers: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None,
    most: int,
) -> dict[str, list[str]]:
    """The layers of each network."""
    if layers is None:
        if len(networks) == 1:
            found = {name: _norms_and_dropouts(network, most) for name, network in networks.items()}
        if len(networks) > 1 or not any(found.values()):
            found = {name: _of_kind(network, _is_activation) for name, network in networks.items()}
        if not any(found.values()):
            kinds = ", ".join(sorted({type(network).__name__ for network in networks.values()}))
            raise ValueError(f"{kinds} has no batch norm, dropout or activation as a layer to look at: name `layers`")
        return found
    if not isinstance(layers, Mapping):
        layers = dict.fromkeys(networks, layers)
    elif unknown := [name for name in layers if name not in networks]:
        known = f"there are {', '.join(networks)}" if len(networks) > 1 else "there is one network: give a plain list"
        raise ValueError(f"layers are given for {unknown[0]!r}, which is no member: {known}")
    found = {name: [given] if isinstance(given, str) else list(given) for name, given in layers.items()}
    if not found or not all(found.values()):
        raise ValueError("layers is empty: name at least one, or leave it out")
    return found


def _norms_and_dropouts(network: nn.Module, most: int) -> list[str]:
    """Of more than ``most``, some of both, in the network's order."""
    norms = _of_kind(network, lambda layer: isinstance(layer, nn.modules.batchnorm._BatchNorm))
    dropouts = _of_kind(network, lambda layer: isinstance(layer, nn.modules.dropout._DropoutNd))
    half = min(len(norms), max(most // 2, most - len(dropouts)))
    chosen = {*_evenly(norms, half), *_evenly(dropouts, most - half)}
    return [name for name, _ in network.named_modules() if name in chosen]


def _of_kind(network: nn.Module, is_it: Callable[[nn.Module], bool]) -> list[str]:
    return [name for name, layer in network.named_modules() if name and is_it(layer)]


def _evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many, with the first and the last."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return list(items[:most])
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _is_activation(layer: nn.Module) -> bool:
    """Whether this is one of torch's pointwise activation functions."""
    others = nn.MultiheadAttention | nn.Softmax | nn.Softmax2d | nn.LogSoftmax | nn.Softmin
    return type(layer).__module__ == nn.ReLU.__module__ and not isinstance(layer, others)


def _describe(networks: Mapping[str, nn.Module], taps: list[Tap]) -> Place:
    kinds = [type(find_layer(networks[tap.network], tap.layer)).__name__ for tap in taps]
    words = {"input": "into", "output": "out of"}
    texts = [f"{tap.layer} ({kind})" for tap, kind in zip(taps, kinds, strict=True)]
    if len(networks) == 1:
        title = texts[0] if len(taps) > 1 else f"{words[taps[0].side]} {texts[0]}"
        return Place(title, taps, [{"input": "before", "output": "after"}[tap.side] for tap in taps])
    if len({(text, tap.side) for text, tap in zip(texts, taps, strict=True)}) == 1:
        return Place(f"{words[taps[0].side]} {texts[0]}", taps, [tap.network for tap in taps])
    labels = [f"{tap.network}: {words[tap.side]} {text}" for tap, text in zip(taps, texts, strict=True)]
    side = f"{words[taps[0].side]} " if len({tap.side for tap in taps}) == 1 else ""
    return Place(side + " / ".join(dict.fromkeys(texts)), taps, labels)
