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
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from lightning_cifar.plots.image_grid import per_channel, to_displayable
from lightning_cifar.plots.pages.page import PagePicture, document, escape, image, paragraphs

_SCRIPTS = [f"microscope_{name}.js" for name in ("data", "terms", "draw", "panels", "page")]
LIMIT = 40_000_000
"""Largest size of a page in bytes."""


@dataclass(frozen=True)
class MicroscopePage:
    """Content of a page.

    Attributes:
        title: Title of the page.
        facts: Sentences under the title.
        classes: Names of the K classes.
        names: Names of the N images.
        labels: True classes of the N images; None if they are not known.
        mean: Mean of each channel, by which the images were normalised. Without valid ones, images are shown in their
            own range.
        std: Standard deviation of each channel.
        layers: Descriptions of the layers, see ``lightning_cifar.analysis.microscope.content``.
        output: Number of the layer with the logits.
        states: Title and arrays of each state of the network.
        shared: Arrays of the last state.
        windows: Rows and columns of the occluding windows.
        tiles: (M, C, h, w), normalised images from which patches are shown.
        tile_labels: Their true classes.
    """

    title: str
    facts: Sequence[str]
    classes: Sequence[str]
    names: Sequence[str]
    labels: Sequence[int | None]
    mean: ArrayLike | None
    std: ArrayLike | None
    layers: Sequence[Mapping[str, Any]]
    output: int
    states: Sequence[tuple[str, Mapping[str, NDArray[Any]]]]
    shared: Mapping[str, NDArray[Any]]
    windows: tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]
    tiles: NDArray[np.float32]
    tile_labels: Sequence[int]


class MicroscopeFile(NamedTuple):
    """A page."""

    text: str
    left_out: list[str]
    """Sentences on weights that were left out so that the page is not too large."""


def microscope_html(page: MicroscopePage, limit: int = LIMIT) -> MicroscopeFile:
    """Return the page as text. Markup in names is escaped.

    If the page is larger than ``limit`` bytes, the largest weights are left out, and the arithmetic of their layers.

    Raises:
        ValueError: The page is above the limit without any weights.
    """
    states = [{name: _pack(array) for name, array in arrays.items()} for _, arrays in page.states]
    shared = {name: _pack(array) for name, array in page.shared.items()}
    atlas = _atlas(page)
    text = _write(page, states, shared, atlas, [])
    left_out: list[str] = []
    excess = len(text) - limit
    while excess > 0:
        weights = {name: sum(len(state[name]) for state in states) for name in states[0] if name.endswith(".weight")}
        if not weights:
            size = (excess + limit) / 1e6
            raise ValueError(f"the page has {size:.1f} MB without kernels, above the limit of {limit / 1e6:.1f} MB")
        name = max(weights, key=lambda name: weights[name])
        count = page.states[0][1][name].size
        layer = page.layers[int(name.split(".")[0])]["name"]
        left_out.append(f"the kernels of {layer} ({count:,} weights, {weights[name] / 1e6:.1f} MB)")
        for state in states:
            excess -= len(state.pop(name))
    if left_out:
        note = f"Left out to stay below {limit / 1e6:.1f} MB: {', '.join(left_out)}."
        text = _write(page, states, shared, atlas, [note])
    return MicroscopeFile(text, left_out)


def _write(
    page: MicroscopePage,
    states: Sequence[Mapping[str, str]],
    shared: Mapping[str, str],
    atlas: tuple[PagePicture, int],
    notes: Sequence[str],
) -> str:
    channels = page.layers[0]["shape"][0]
    mean, std = (per_channel(values, channels) for values in (page.mean, page.std))
    known = None if mean is None or std is None else [np.resize(each, channels).tolist() for each in (mean, std)]
    data = {
        "classes": page.classes,
        "images": [{"name": name, "label": label} for name, label in zip(page.names, page.labels, strict=True)],
        "mean": known and known[0],
        "std": known and known[1],
        "layers": page.layers,
        "output": page.output,
        "states": [{"title": title, "arrays": state} for (title, _), state in zip(page.states, states, strict=True)],
        "shared": shared,
        "windows": page.windows,
        "tiles": {"columns": atlas[1], "size": page.tiles.shape[2:], "labels": page.tile_labels},
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = [
        f"<h1>{escape(page.title)}</h1>",
        paragraphs([*page.facts, *notes]),
        _file("microscope_page.html"),
        image(atlas[0], "", 'id="atlas" hidden ') if len(page.tiles) else "",
        f'<script type="application/json" id="data">{text}</script>',
        *(f"<script>\n{_file(name)}</script>" for name in _SCRIPTS),
    ]
    policy = "script-src 'unsafe-inline'; img-src data:"
    return document(page.title, policy, _file("microscope_page.css") + "\n", parts)


def _pack(array: NDArray[Any]) -> str:
    planes = np.ascontiguousarray(array, "<f4").view(np.uint8).reshape(-1, 4).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")


def _atlas(page: MicroscopePage) -> tuple[PagePicture, int]:
    """One picture of all tiles, and its number of columns."""
    if not len(page.tiles):
        return PagePicture("", b""), 1
    pixels = (to_displayable(page.tiles, page.mean, page.std) * 255).round().clip(0, 255).astype(np.uint8)
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
