"""Synthetic images in the format of CIFAR-10, without files or network."""

from __future__ import annotations

from typing import Any, Literal

from lightning_cifar.data.image_datamodule import ImageDataModule, LabelledImages
from lightning_cifar.data.shapes import CLASS_NAMES, draw_shapes

MAX_TRAIN = 50_000


class SyntheticDataModule(ImageDataModule):
    """Ten classes of drawn shapes and textures with random colour, position, size, rotation and noise.

    Args:
        num_train: Number of training images, up to 49,000 with the default ``num_val``.
        num_val: Number of validation images.
        num_test: Number of test images.
        data_seed: Seed of the images.
        **loading: See :class:`~lightning_cifar.data.image_datamodule.ImageDataModule`.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> data = SyntheticDataModule(num_train=20, num_val=10, num_test=10, batch_size=8)
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([8, 3, 32, 32]), torch.Size([8]))
    """

    class_names = CLASS_NAMES
    own_mean = (0.5, 0.5, 0.5)
    own_std = (0.25, 0.25, 0.25)

    def __init__(
        self,
        *,
        num_train: int = 10_000,
        num_val: int = 1_000,
        num_test: int = 2_000,
        data_seed: int = 0,
        **loading: Any,
    ) -> None:
        super().__init__(num_train=num_train, num_val=num_val, **loading)
        if num_train + num_val > MAX_TRAIN:
            raise ValueError(
                f"num_train (={num_train}) + num_val (={num_val}) must not exceed the {MAX_TRAIN} training images."
            )
        if not 1 <= num_test <= MAX_TRAIN:
            raise ValueError(f"num_test (={num_test}) must be between 1 and {MAX_TRAIN}.")
        self.num_test, self.data_seed = num_test, data_seed

    def load(self, part: Literal["train", "test"]) -> LabelledImages:
        if part == "train":
            assert self.num_train is not None
            return LabelledImages(*draw_shapes(self.num_train + self.num_val, seed=self.data_seed))
        # test images follow all possible training images
        return LabelledImages(*draw_shapes(self.num_test, seed=self.data_seed, first=MAX_TRAIN))
