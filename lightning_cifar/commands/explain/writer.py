"""Results of ``lightning-cifar explain``: pictures, a table, and an HTML page."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_cifar import plots
from lightning_cifar.artifacts import write_picture
from lightning_cifar.errors import UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.images import ImageFile
from lightning_cifar.files.tables import to_csv
from lightning_cifar.files.text import plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_cifar.checkpoints.trained import Trained

Array = NDArray[np.float32]

_MOST_BARS = 15  # more names would not be readable


class Explanation(NamedTuple):
    """Results for one image."""

    probabilities: Array
    """(K,)"""
    target: int
    drops: Array
    """(H, W), drop of each pixel; NaN if no window covers it."""
    largest: float
    """Largest drop of all window positions."""
    highest: float
    """Largest rise of all window positions, at least 0."""
    error: float
    """Estimated root mean square error."""
    maps: dict[str, Array]
    """Layer -> (K, P, Q)."""


class ExplanationWriter:
    """Writes the results of each image, and the table and the page at the end.

    The folder is created with the first result.
    """

    def __init__(self, out: Path, options: argparse.Namespace, trained: Trained) -> None:
        self.out, self.options, self.trained = out, options, trained
        self.images: list[plots.Explained] = []
        self.rows: list[list[object]] = []

    def add(self, path: Path, image: ImageFile, explained: Explanation) -> str:
        """Draw and write the results of an image, and return them in a sentence."""
        if not self.images:
            try:
                self.out.mkdir(parents=True)
            except OSError as error:
                reason = f"{error.strerror}: pass another --out"
                raise UsageError(f"cannot create the folder {self.out}: {reason}.") from error
        names, p = self.trained.class_names, explained.probabilities
        best = np.argsort(-p, kind="stable")[: self.options.top].tolist()
        bars = list(dict.fromkeys([*best[:_MOST_BARS], explained.target]))
        target = names[explained.target]
        sentence = self._describe(explained, best[0])

        stem = f"{len(self.images) + 1:03d}_{re.sub(r'[^A-Za-z0-9-]+', '_', path.stem)[:40].strip('_')}"
        figure = plots.draw_explanation(
            image.shown,
            image.view,
            explained.drops,
            [(names[k], float(p[k])) for k in bars],
            target=target,
            box=image.box,
            title=f"{sentence} (window {self.options.window} x {self.options.window} pixels)",
        )
        explanation = self._write(f"{stem}.png", sentence, figure)
        more = []
        for layer, maps in explained.maps.items():
            figure = plots.draw_feature_maps(image.view, maps, layer=layer)
            name = re.sub(r"[^A-Za-z0-9.-]+", "_", layer)
            more.append(self._write(f"{stem}_maps_{name}.png", f"feature maps of {layer}", figure))
        summary = [
            names[best[0]],
            plots.to_percent(float(p[best[0]])),
            target,
            f"{explained.largest:.3f}",
            f"{explained.highest:.3f}",
        ]
        self.images.append(plots.Explained(plain_name(path), summary, explanation, more))
        ranked = [cell for k in best for cell in (names[k], f"{p[k]:.4f}")]
        drop = [target, f"{p[explained.target]:.4f}", f"{explained.largest:.4f}", f"{explained.highest:.4f}"]
        self.rows.append([plain_name(path), *ranked, *drop])
        return sentence

    def finish(self, notes: Sequence[str]) -> Path:
        """Write the table and the page, and return the path of the page."""
        count = (len(self.rows[0]) - 5) // 2
        ranks = ["", *(f"_{rank}" for rank in range(2, count + 1))]
        header = ["file", *(f"{name}{rank}" for rank in ranks for name in ("class", "probability"))]
        header += ["target", "target_probability", "largest_drop", "largest_rise"]
        write_atomically(self.out / "predictions.csv", to_csv(header, self.rows))
        model, options = self.trained.model, self.options
        num_weights = sum(parameter.numel() for parameter in model.parameters())
        step = f"{options.stride} pixel{'s' * (options.stride > 1)}"
        part = "the middle square" if options.resize == "crop" else "the whole image as a square"
        fill = {"mean": "the image's mean color", "blur": "the blurred image"}.get(options.fill, options.fill)
        facts = [
            ("checkpoint", f"{options.ckpt_path}, after {self.trained.epochs} epochs"),
            ("network", f"{type(model).__name__}, {num_weights:,} parameters"),
            ("input", f"{model.image_size} x {model.image_size} pixels: {part}, bicubic with antialiasing"),
            ("window", f"{options.window} x {options.window} pixels, stride {step}, covers with {fill}"),
        ]
        page = plots.explain_html(
            self.images,
            title=f"{len(self.images)} image{'s' * (len(self.images) != 1)} explained",
            facts=facts,
            columns=["predicted", "probability*", "map of", "largest drop*", "largest rise*"],
            notes=notes,
        )
        write_atomically(self.out / "index.html", page.encode("utf-8", "replace"))
        return self.out / "index.html"

    def _describe(self, explained: Explanation, best: int) -> str:
        """Describe the results in a sentence."""
        names, p = self.trained.class_names, explained.probabilities
        target = names[explained.target]
        sentence = f"{names[best]} {plots.to_percent(float(p[best]))}; "
        if explained.target != best:
            sentence += f"P({target}) is {p[explained.target]:.3f}; "
        changes = {"lowers": explained.largest, "raises": explained.highest}
        effects = [f"{verb} P({target}) by up to {by:.3f}" for verb, by in changes.items() if by >= 0.0005]
        sentence += f"covering {' and '.join(effects) or f'does not change P({target})'}"
        return sentence + (f" (error about {explained.error:.3f})" if self.options.mode == "fast" else "")

    def _write(self, name: str, caption: str, figure: Figure) -> plots.PagePicture:
        return plots.PagePicture(caption, write_picture(self.out / "pictures" / name, figure))


def plain_name(path: Path) -> str:
    """Return the file's name in printable characters."""
    return plain_text(path.name)
