"""Pictures of the runs, reduced in size for a page. Does not import torch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from lightning_cifar.errors import one_line
from lightning_cifar.files.images import UnreadableImageError, use_image
from lightning_cifar.plots import PagePicture
from lightning_cifar.studies.report.comparison import Compared
from lightning_cifar.studies.report.results import RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BUDGET = 2_500_000
"""Maximum size of all pictures of a page, in bytes before base64."""

_DPI = 200
_LARGEST = 64 << 20  # bytes of a file; pictures of a run have a few million
_MOST_DECODED = 2**31  # pixels of all frames
_WIDTH, _MOST, _KINDS = 620, 72, (".png", ".gif", ".webp", ".jpg")


def collect_pictures(compared: Compared) -> tuple[dict[str, list[PagePicture]], list[str]]:
    """Return the pictures of one run of each arm by their names, and notes on missing ones.

    The run is the first finished one with pictures, or the first with pictures. Pictures wider than 620 pixels are
    reduced; for an animation that is too large, the last frame is shown.
    """
    found: dict[str, list[tuple[str, Path]]] = {}
    for arm in compared.arms:
        run, paths = _shown_run([run for run in compared.runs if run.arm == arm])
        for path in paths:
            assert run is not None
            name = str(path.relative_to(run.folder / "pictures").with_suffix("")).replace("_", " ")
            if path.suffix == ".webp" and path.with_suffix(".gif") in paths:
                continue  # the same animation
            found.setdefault(name, []).append((f"{arm}, seed {run.seed}", path))
    total = sum(map(len, found.values()))
    room = BUDGET // max(1, min(total, _MOST))
    pictures: dict[str, list[PagePicture]] = {}
    left, notes = _MOST, []
    for name in sorted(found):
        for caption, path in found[name][:left]:
            left -= 1
            try:
                content, kind = shrink(path, room)
            except (OSError, UnreadableImageError) as error:  # truncated, for example by a killed run
                notes.append(f"{path} cannot be read as a picture ({one_line(error)}): not shown")
                continue
            pictures.setdefault(name, []).append(PagePicture(caption, content, kind))
    if total > _MOST:
        notes.append(f"{total - _MOST} of {total} pictures are not shown: see the folders of the runs")
    return pictures, notes


def _shown_run(runs: Sequence[RunResult]) -> tuple[RunResult | None, list[Path]]:
    for run in sorted(runs, key=lambda run: run.state != "done"):
        files = (path for path in (run.folder / "pictures").rglob("*") if path.suffix in _KINDS and path.is_file())
        # A link in a received folder could point to a private picture of the reader.
        paths = sorted(path for path in files if path.resolve().is_relative_to(run.folder.resolve()))
        if paths:
            return run, paths
    return None, []


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    from lightning_cifar.plots.rendering import to_png  # slow, since it imports matplotlib

    return to_png(figure, _DPI)


def shrink(path: Path, room: int) -> tuple[bytes, str]:
    """Return a picture of at most about ``room`` bytes, and its format, such as ``png``.

    Raises:
        UnreadableImageError: If the file is not a picture, or too large.
        OSError: If it cannot be read.
    """
    if path.stat().st_size > _LARGEST:
        raise UnreadableImageError(f"it is larger than {_LARGEST >> 20} MB")
    frame = use_image(path, lambda image: _content(path, image, room))
    if not isinstance(frame, Image.Image):
        return frame
    width = min(frame.width, _WIDTH)
    while True:
        buffer = io.BytesIO()
        height = max(1, round(frame.height * width / frame.width))
        frame.resize((width, height), Image.Resampling.LANCZOS).save(buffer, "webp", quality=82, method=2)
        if buffer.tell() <= room or width <= 120:
            return buffer.getvalue(), "webp"
        width = round(0.75 * width)


def _content(path: Path, image: Image.Image, room: int) -> tuple[bytes, str] | Image.Image:
    """Return the file and its format if it is small enough, otherwise the last frame."""
    frames = int(getattr(image, "n_frames", 1))
    if (image.width <= _WIDTH or frames > 1) and path.stat().st_size <= room:
        return path.read_bytes(), str(image.format).lower()
    if frames * image.width * image.height <= _MOST_DECODED:
        image.seek(frames - 1)
    return image.convert("RGB")
