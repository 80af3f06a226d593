"""Residual networks for CIFAR-10 (He et al., 1512.03385, section 4.2)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import stochastic_depth as drop_branch

from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.trainable import check_fraction

WIDTHS = (16, 32, 64)


class ResNetCIFAR(Classifier):
    """Residual network of 6n + 2 layers: three stages of n blocks with 16, 32 and 64 channels.

    Shortcuts have no parameters.

    Number of parameters: 269,722 with ``depth=20``, 464,154 with 32, 658,586 with 44, 853,018 with 56.

    Args:
        depth: Number of layers with weights.
        stochastic_depth: Probability of dropping the branch of the last block in training, for each image; it
            increases linearly from the first block to the last (Huang et al., 1603.09382).
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> from lightning_cifar import ResNetCIFAR
        >>> sum(parameter.numel() for parameter in ResNetCIFAR(20).parameters())
        269722
    """

    def __init__(self, depth: Literal[20, 32, 44, 56] = 20, stochastic_depth: float = 0.0, **training: Any) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        check_fraction("stochastic_depth", stochastic_depth)
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth (={depth}) must be 6n + 2: 20, 32, 44 or 56.")
        num_blocks = (depth - 2) // 6
        self.network = _Network(self.in_channels, self.num_classes, num_blocks, stochastic_depth).to(
            memory_format=torch.channels_last
        )


class _Block(nn.Module):
    def __init__(self, num_in: int, num_out: int, stride: int, drop: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)
        self.stride, self.num_new, self.drop = stride, num_out - num_in, drop

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.drop:
            branch = drop_branch(branch, self.drop, mode="row", training=self.training)
        if self.num_new:  # every second pixel, and zeros in the additional channels
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.num_new // 2, self.num_new // 2))
        return F.relu(branch + x)


class _Network(nn.Module):
    """Network with the layer names of the published weights."""

    def __init__(self, in_channels: int, num_classes: int, num_blocks: int, drop: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        width, count = WIDTHS[0], 0
        for stage, next_width in enumerate(WIDTHS, start=1):
            blocks = []
            for i in range(num_blocks):
                count += 1
                stride = 2 if stage > 1 and i == 0 else 1
                blocks.append(_Block(width, next_width, stride, drop * count / (3 * num_blocks)))
                width = next_width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits
