"""A linear classifier and a two-layer network of hand-made layers, trained with Lightning's Trainer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.hand_made import HandLinear, HandReLU, hand_l2_regularization, hand_softmax_loss


class HandClassifier(Classifier):
    """Base class with small random weights, zero biases, softmax loss and an L2 penalty on the weights.

    ``train/loss`` includes the penalty, ``val/loss`` and ``test/loss`` do not.
    """

    reg: float

    def _build(self, sizes: list[int], weight_scale: float, reg: float) -> None:
        if not weight_scale > 0:
            raise ValueError(f"weight_scale (={weight_scale}) must be positive.")
        if not reg >= 0:
            raise ValueError(f"reg (={reg}) must be at least 0.")
        if self._mix is not None or self.label_smoothing or self.loss_name != "cross_entropy":
            raise ValueError(
                "the hand-made softmax loss needs hard labels: omit mixup, cutmix, label_smoothing and loss."
            )
        self.reg = reg
        steps: list[nn.Module] = [nn.Flatten()]
        for size_in, size_out in pairwise(sizes):
            layer = HandLinear(size_in, size_out)
            nn.init.normal_(layer.weight, std=weight_scale)
            nn.init.zeros_(layer.bias)
            steps += [layer, HandReLU()]
        self.network = nn.Sequential(*steps[:-1])

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the softmax loss plus the L2 penalty."""
        loss = hand_softmax_loss(logits, labels)
        for layer in self.network.children():
            if isinstance(layer, HandLinear):
                loss = loss + hand_l2_regularization(layer.weight, self.reg)
        return loss


class LinearClassifier(HandClassifier):
    """Linear classifier of flattened images; 30,730 parameters on CIFAR-10.

    Args:
        weight_scale: Standard deviation of the initial weights.
        reg: Factor of the penalty (reg / 2) sum w^2.
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.

    Raises:
        ValueError: If a value is out of range, or a setting needs soft labels.

    Example:
        >>> import torch
        >>> from lightning_cifar import LinearClassifier
        >>> LinearClassifier(lr=0.01)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, weight_scale: float = 1e-3, reg: float = 0.0, **training: Any) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        self._build([self.in_channels * self.image_size**2, self.num_classes], weight_scale, reg)


class TwoLayerNet(HandClassifier):
    """Fully connected, ReLU, fully connected; 197,322 parameters on CIFAR-10 with 64 hidden units.

    Args:
        hidden: Number of hidden units.
        weight_scale: Standard deviation of the initial weights.
        reg: Factor of the penalty (reg / 2) sum w^2 of each layer.
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.

    Raises:
        ValueError: If a value is out of range, or a setting needs soft labels.

    Example:
        >>> import torch
        >>> from lightning_cifar import TwoLayerNet
        >>> TwoLayerNet(hidden=32, reg=1e-3)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, hidden: int = 64, weight_scale: float = 1e-3, reg: float = 0.0, **training: Any) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        if hidden < 1:
            raise ValueError(f"hidden (={hidden}) must be at least 1.")
        self._build([self.in_channels * self.image_size**2, hidden, self.num_classes], weight_scale, reg)
