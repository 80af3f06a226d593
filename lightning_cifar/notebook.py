"""In a notebook: the pictures of a run below a cell."""

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

_KINDS = (".png", ".gif")  # a lossless WebP of the same animation lies beside each GIF


def show(run: Trainer | str | os.PathLike[str], names: str = "*", *, width: int | None = None) -> list[Path]:
    """Show the pictures and animations of a run below the cell of a notebook, and give their paths anywhere.

    Args:
        run: A trainer, whose run is meant, or the folder of a run.
        names: Which pictures, such as ``filters*``: a pattern on the names below ``pictures/``, without their endings.
        width: In pixels; None takes the size that each was drawn in.

    Raises:
        FileNotFoundError: There is no such picture; the message names those that there are.
        UsageError: A picture is not a regular file.
    """
    folder = Path(run) if isinstance(run, str | os.PathLike) else run_folder(run)
    pictures = folder / "pictures"
    there = sorted(path for path in pictures.rglob("*") if path.suffix in _KINDS)
    stems = [path.relative_to(pictures).with_suffix("").as_posix() for path in there]
    found = [(stem, path) for stem, path in zip(stems, there, strict=True) if fnmatch(stem, names)]
    if not found:
        some = ", ".join(stems[:12]) + (" ..." if len(stems) > 12 else "")
        raise FileNotFoundError(
            f"no picture {names!r} in {pictures}: " + (f"there are {some}." if some else "none yet.")
        )
    if "IPython" in sys.modules:
        from IPython import get_ipython
        from IPython.display import Image, Markdown, display

        if get_ipython() is not None:  # else it would print the names of objects
            for stem, path in found:
                content = read_bytes(path)
                picture = Image(data=content, format=path.suffix[1:], width=width)  # type: ignore[no-untyped-call]
                display(Markdown(f"**{stem}**"), picture)  # type: ignore[no-untyped-call]
    return [path for _, path in found]
