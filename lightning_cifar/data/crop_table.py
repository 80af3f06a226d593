"""A table of padded image rows, from which crops and mirror images are gathered."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


class RowTable:
    """Images as padded rows, from which crops (mirrored or not) are gathered without a pass over the pixels.

    All windows of W pixels over the rows are one overlapping view of the same memory, so that a crop is H lookups of
    contiguous bytes. Index arithmetic for each pixel was tried and is 10 times slower on a CPU.

    Args:
        images: uint8 (M, H, W, C).
        padding: Number of pixels added on each side.
        mode: ``"reflect"`` mirrors about the border pixel, ``"zero"`` adds black.
        mirrored: Whether to store the mirrored images too, which doubles the memory.
    """

    def __init__(self, images: Tensor, *, padding: int, mode: Literal["reflect", "zero"], mirrored: bool) -> None:
        num, height, width, channels = images.shape
        self.num, self.height, self.width, self.channels = num, height, width, channels
        self.padding, self.mode = padding, mode
        padded_width = width + 2 * padding
        copies = 2 if mirrored else 1
        # one more row of zeros: the pixels above and below the image in mode "zero"
        rows = images.new_zeros((copies * num * height + 1, padded_width, channels))
        for copy in range(copies):
            table = rows[copy * num * height : (copy + 1) * num * height].view(num, height, padded_width, channels)
            source = images.flip(2) if copy else images
            table[:, :, padding : padding + width] = source
            if mode == "reflect" and padding:
                table[:, :, :padding] = source[:, :, 1 : padding + 1].flip(2)
                table[:, :, padding + width :] = source[:, :, -padding - 1 : -1].flip(2)
        self._padded_width = padded_width
        flat = rows.view(-1)
        self._windows = flat.as_strided(
            (rows.shape[0] * padded_width - width + 1, width * channels), (channels, 1), flat.storage_offset()
        )

    def gather(self, indices: Tensor, top: Tensor, left: Tensor, mirror: Tensor | None = None) -> Tensor:
        """Return crops (N, H, W, C) with upper left corners ``(top, left)`` in the padded images, 0 to 2 * padding.

        Args:
            indices: Indices of the images, int64 (N,).
            top: Rows of the corners, int64 (N,).
            left: Columns of the corners, int64 (N,), in the mirrored image where ``mirror`` is true.
            mirror: Whether each crop is mirrored, bool (N,).
        """
        rows = top[:, None] - self.padding + torch.arange(self.height, device=indices.device)
        image = indices if mirror is None else indices + mirror * self.num
        if self.mode == "reflect":
            last = self.height - 1
            rows = last - (last - rows.abs()).abs()
            rows = image[:, None] * self.height + rows
        else:
            outside = (rows < 0) | (rows >= self.height)
            black = (self._windows.shape[0] + self.width - 1) // self._padded_width - 1
            rows = (image[:, None] * self.height + rows).masked_fill_(outside, black)
        starts = rows * self._padded_width + left[:, None]
        windows = self._windows.index_select(0, starts.view(-1))
        return windows.view(indices.shape[0], self.height, self.width, self.channels)
