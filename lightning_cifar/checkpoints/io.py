"""Checkpoints that cannot lie: written whole or not at all, with their SHA-256 beside, and read only if they agree."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_cifar.files.checksums import read_verified, remove_verified, write_verified


class VerifiedCheckpointIO(TorchCheckpointIO):
    """For ``Trainer(plugins=[VerifiedCheckpointIO()])``; runs of the command line have it.

    Reading executes nothing that is in the file. Remote paths (``s3://...``) are left to Lightning.
    """

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
        content = io.BytesIO(read_verified(Path(path)))
        loaded: dict[str, Any] = torch.load(content, map_location, weights_only=weights_only is not False)
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        if _is_remote(path):
            super().remove_checkpoint(path)
        else:
            remove_verified(Path(path))


def _is_remote(path: str | Path) -> bool:
    return "://" in str(path)
