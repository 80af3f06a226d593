"""Store of the arrays from which an animation is drawn, in a hidden folder of the run."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.reading import MissingFileError, UnreadableFileError, read_bytes, read_npz


class FrameStore:
    """Store of the arrays from which the frames of an animation are drawn, one file for each frame.

    Frames are numbered from 0. Use it on global rank zero only.

    Args:
        folder: Folder, which is created with the first frame.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, index: int, **arrays: ArrayLike) -> None:
        """Write or overwrite a frame."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
        write_atomically(self._path(index), buffer.getvalue())

    def read(self, index: int) -> dict[str, NDArray[np.generic]] | None:
        """Read the arrays of a frame; None if its file does not exist.

        Raises:
            UnreadableFileError: If the file is damaged.
        """
        try:
            return read_npz(self._path(index))
        except MissingFileError:
            return None

    def indices(self) -> list[int]:
        """Return the numbers of the frames in ascending order."""
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.npz") if path.stem.isdecimal())

    def remove(self, index: int) -> None:
        """Remove a frame, if it exists."""
        self._path(index).unlink(missing_ok=True)

    def keep(self, count: int) -> None:
        """Remove all frames but the first ``count``."""
        for index in self.indices():
            if index >= count:
                self.remove(index)

    def copy_from(self, other: FrameStore, count: int) -> None:
        """Copy those of the first ``count`` frames of another store that can be read."""
        for index in range(count):
            with suppress(UnreadableFileError):
                write_atomically(self._path(index), read_bytes(other._path(index)))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"


def frame_store(run: Path, name: str) -> FrameStore:
    """Return the store ``pictures/.frames/<name>`` of a run. It is kept for runs that resume the run."""
    return FrameStore(run / "pictures" / ".frames" / name)
