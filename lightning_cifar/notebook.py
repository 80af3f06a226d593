"""Show the pictures of a run in a notebook."""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cifar.artifacts import run_folder
from lightning_cifar.files.reading import read_bytes

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_KINDS = (".png", ".gif")  # each GIF has a lossless WebP of the same animation beside it


def show(run: Trainer | str | os.PathLike[str], names: str = "*", *, width: int | None = None) -> list[Path]:
    """Show the pictures and animations of a run below the cell of a notebook.

    Args:
        run: The trainer of a run, or its folder.
        names: Pattern for the names in ``pictures/``, without file extensions, such as ``filters*``.
        width: Width in pixels; None means the original size.

    Returns:
        The paths of the pictures, also outside of a notebook.

    Raises:
        FileNotFoundError: If no picture matches; the message lists the pictures of the run.
        UsageError: If a picture is not a regular file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as run:
        ...     Path(run, "pictures").mkdir()
        ...     Path(run, "pictures", "filters.png").touch()
        ...     [path.name for path in show(run, "filters*")]
        ['filters.png']
    """
    folder = Path(run) if isinstance(run, str | os.PathLike) else run_folder(run)
    pictures = folder / "pictures"
    there = sorted(path for path in pictures.rglob("*") if path.suffix in _KINDS)
    stems = [path.relative_to(pictures).with_suffix("").as_posix() for path in there]
    found = [(stem, path) for stem, path in zip(stems, there, strict=True) if fnmatch(stem, names)]
    if not found:
        some = (", ".join(stems[:12]) + (" ..." if len(stems) > 12 else "")) or "none yet"
        raise FileNotFoundError(f"no picture {names!r} in {pictures}: available: {some}.")
    if "IPython" in sys.modules:
        from IPython import get_ipython
        from IPython.display import Image, Markdown, display

        if get_ipython() is not None:  # otherwise display() prints the names of objects
            for stem, path in found:
                content = read_bytes(path)
                picture = Image(data=content, format=path.suffix[1:], width=width)  # type: ignore[no-untyped-call]
                display(Markdown(f"**{stem}**"), picture)  # type: ignore[no-untyped-call]
    return [path for _, path in found]
