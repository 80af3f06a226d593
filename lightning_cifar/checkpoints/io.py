"""Checkpoints with SHA-256 checksums, which are written atomically and verified when they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.files.checksums import read_verified, remove_verified, write_verified


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Checkpoint plugin of Lightning that writes and verifies checksums. The command line uses it for all runs.

    Reading a file does not execute code in it. All processes of a distributed run receive the checkpoint that rank zero
    reads. Lightning handles remote paths (``s3://...``) without checksums.

    Args:
        checkpoint: A checkpoint that is already in memory, and is not read again.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> plugin = VerifiedCheckpointIO()  # for Trainer(plugins=[plugin])
        >>> with TemporaryDirectory() as folder:
        ...     plugin.save_checkpoint({"epoch": 3}, Path(folder, "a.ckpt"))
        ...     plugin.load_checkpoint(Path(folder, "a.ckpt"))
        {'epoch': 3}
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        super().__init__()
        self._checkpoint = checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if storage_options is not None or _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_verified(Path(path), buffer.getvalue())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if _is_remote(path):
            return super().load_checkpoint(path, map_location, weights_only)
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self._read(Path(path), map_location, weights_only)
        # Other nodes may not have the file, which rank zero wrote.
        held = [self._read(Path(path), map_location, weights_only) if torch.distributed.get_rank() == 0 else {}]
        torch.distributed.broadcast_object_list(held)
        return held[0]

    def _read(self, path: Path, map_location: Any, weights_only: bool | None) -> dict[str, Any]:
        if self._checkpoint is not None and path == self._checkpoint.path:
            held, self._checkpoint = dict(self._checkpoint.content), None  # once: the file can change during the run
            return held
        loaded: dict[str, Any] = torch.load(
            io.BytesIO(read_verified(path)), map_location, weights_only=weights_only is not False
        )
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        if _is_remote(path):
            super().remove_checkpoint(path)
        else:
            remove_verified(Path(path))


def _is_remote(path: str | Path) -> bool:
    return "://" in str(path)
