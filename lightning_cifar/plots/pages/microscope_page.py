"""Values of all layers of a network on a self-contained HTML page, to explore them with mouse, touch or keyboard.

Each array is stored as float32, byte plane by byte plane (all lowest bytes first), deflated and in base64. The planes
of signs and exponents compress well.
"""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from lightning_cifar.plots.image_grid import per_channel, to_displayable
from lightning_cifar.plots.pages.page import PagePicture, document, escape, image, paragraphs

_SCRIPTS = [f"microscope_{name}.js" for name in ("data", "terms", "draw", "panels", "page")]
LIMIT = 40_000_000
"""Largest size of a page in bytes."""
MOST_VALUES = LIMIT // 5
"""Number of values of maps with which a page stays below the limit: each takes up to 4.9 bytes."""


class MicroscopeContent(Protocol):
    """Layers and arrays, see ``lightning_cifar.analysis.microscope.content.Content``."""

    @property
    def layers(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def output(self) -> int: ...
    @property
    def states(self) -> Sequence[tuple[str, Mapping[str, NDArray[Any]]]]: ...
    @property
    def shared(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def windows(self) -> tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]: ...
    @property
    def labels(self) -> Sequence[int | None]: ...
    @property
    def tiles(self) -> NDArray[np.float32]: ...
    @property
    def tile_labels(self) -> Sequence[int]: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def left_out(self) -> Sequence[str]: ...


class MicroscopeFile(NamedTuple):
    """A page."""

    text: str
    left_out: list[str]
    """Phrases on images and weights that were left out so that the page is not too large."""


def microscope_html(
    content: MicroscopeContent,
    *,
    network: str,
    classes: Sequence[str],
    names: Sequence[str] = (),
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    limit: int = LIMIT,
) -> MicroscopeFile:
    """Return the page as text. Markup in names is escaped.

    If the page is larger than ``limit`` bytes, the largest weights are left out, and the arithmetic of their layers.

    Args:
        content: Layers and arrays.
        network: Name of the network.
        classes: Names of the classes; missing ones are numbered.
        names: Names of the images; empty for validation images.
        mean: Mean of each channel, by which the images were normalised. Without valid ones, images are shown in their
            own range.
        std: Standard deviation of each channel.
        limit: Largest size of the page in bytes.

    Raises:
        ValueError: The page is above the limit without any weights.
    """
    channels = content.layers[0]["shape"][0]
    known = [per_channel(values, channels) for values in (mean, std)]
    pixels = None if known[0] is None or known[1] is None else [np.resize(each, channels).tolist() for each in known]  # type: ignore[arg-type]
    states = [{name: _pack(array) for name, array in arrays.items()} for _, arrays in content.states]
    atlas, columns = _atlas(content.tiles, mean, std)
    count = content.layers[content.output]["shape"][0]
    names = names or [f"validation image {i + 1}" for i in range(len(content.labels))]
    data = {
        "classes": [*classes, *(f"class {k}" for k in range(len(classes), count))][:count],
        "images": [{"name": name, "label": label} for name, label in zip(names, content.labels, strict=True)],
        "mean": pixels and pixels[0],
        "std": pixels and pixels[1],
        "layers": content.layers,
        "output": content.output,
        "states": [{"title": title, "arrays": state} for (title, _), state in zip(content.states, states, strict=True)],
        "shared": {name: _pack(array) for name, array in content.shared.items()},
        "windows": content.windows,
        "tiles": {"columns": columns, "size": content.tiles.shape[2:], "labels": content.tile_labels},
    }
    fact = f"{sum(layer['parameters'] for layer in content.layers):,} parameters, {content.states[-1][0]}"
    if content.accuracy is not None:
        fact += f"; accuracy {content.accuracy:.2%} on the validation images"
    left_out = [*content.left_out]
    text = _write(network, [f"{fact}."], data, atlas)
    excess = len(text) - limit
    while excess > 0:
        weights = {name: sum(len(state[name]) for state in states) for name in states[0] if name.endswith(".weight")}
        if not weights:
            size = (excess + limit) / 1e6
            raise ValueError(f"the page has {size:.1f} MB without kernels, above the limit of {limit / 1e6:.1f} MB")
        name = max(weights, key=lambda name: weights[name])
        layer = content.layers[int(name.split(".")[0])]["name"]
        size = weights[name] / 1e6
        left_out.append(f"the kernels of {layer} ({content.states[0][1][name].size:,} weights, {size:.1f} MB)")
        for state in states:
            excess -= len(state.pop(name))
    if left_out:
        note = f"Left out to stay below {limit / 1e6:.1f} MB: {', '.join(left_out)}."
        text = _write(network, [f"{fact}.", note], data, atlas)
    return MicroscopeFile(text, left_out)


def _write(network: str, facts: Sequence[str], data: Mapping[str, Any], atlas: PagePicture | None) -> str:
    # Without "<" the JSON cannot end its element.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    title = f"Microscope: {network}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        paragraphs(facts),
        _file("microscope_page.html"),
        image(atlas, "", 'id="atlas" hidden ') if atlas else "",
        f'<script type="application/json" id="data">{text}</script>',
        *(f"<script>\n{_file(name)}</script>" for name in _SCRIPTS),
    ]
    policy = "script-src 'unsafe-inline'; img-src data:"
    return document(title, policy, _file("microscope_page.css") + "\n", parts)


def _pack(array: NDArray[Any]) -> str:
    planes = np.ascontiguousarray(array, "<f4").view(np.uint8).reshape(-1, 4).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")


def _atlas(tiles: NDArray[np.float32], mean: ArrayLike | None, std: ArrayLike | None) -> tuple[PagePicture | None, int]:
    """One picture of all tiles (M, C, h, w), and its number of columns."""
    if not len(tiles):
        return None, 1
    pixels = (to_displayable(tiles, mean, std) * 255).round().clip(0, 255).astype(np.uint8)
    count, height, width, channels = pixels.shape
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:count] = pixels
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    whole = sheet.reshape(rows * height, columns * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(whole[..., :3] if channels > 2 else whole[..., 0]).convert("RGB").save(
        buffer, "webp", quality=70, method=4
    )
    return PagePicture("", buffer.getvalue(), "webp"), columns


def _file(name: str) -> str:
    return files("lightning_cifar.plots.pages").joinpath(name).read_text(encoding="utf-8")
