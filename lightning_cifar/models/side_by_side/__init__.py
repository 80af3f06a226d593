"""Several networks trained side by side on the same batches."""

from lightning_cifar.models.side_by_side.module import SideBySide

__all__ = ["SideBySide"]
