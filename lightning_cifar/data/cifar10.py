"""CIFAR-10 (Krizhevsky, 2009): 60,000 colour photographs of 32 x 32 pixels in ten classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning_cifar.data.image_datamodule import ImageDataModule, LabelledImages
from lightning_cifar.data.sources import download_cifar10, find_cifar10, read_cifar10
from lightning_cifar.files.paths import expand_user


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 from the official Python batches: a folder ``cifar-10-batches-py`` or the tarball, in ``root``.

    Args:
        root: Folder of the data.
        download: Whether to download the tarball (170 MB) to ``root`` if the data are missing.
        verify: Whether to compare with the official checksums. False reads an unofficial copy.
        url: Address of the tarball, instead of the known mirrors.
        **loading: See :class:`~lightning_cifar.data.image_datamodule.ImageDataModule`.

    Raises:
        FileNotFoundError: In ``setup``, if the data are missing and ``download`` is off.
        ValueError: In ``setup``, if a file is truncated, altered or has other content.

    Example:
        >>> data = CIFAR10DataModule("data", batch_size=64, augment=["flip", {"crop": 4}])
        >>> data.num_classes, data.class_names[:3]
        (10, ('airplane', 'automobile', 'bird'))
    """

    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    own_mean = (0.4914, 0.4822, 0.4465)
    own_std = (0.2470, 0.2435, 0.2616)

    def __init__(
        self,
        root: str | Path = "data",
        *,
        download: bool = False,
        verify: bool = True,
        url: str | None = None,
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        self.root = expand_user(root)
        self.download, self.verify, self.url = download, verify, url
        self._parts: dict[str, LabelledImages] = {}

    def prepare_data(self) -> None:
        if self.download and find_cifar10(self.root) is None:
            download_cifar10(self.root, url=self.url)

    def load(self, part: Literal["train", "test"]) -> LabelledImages:
        if part not in self._parts:
            arrays = read_cifar10(self.root, verify=self.verify)
            self._parts["train"] = LabelledImages(arrays.train_images, arrays.train_labels)
            self._parts["test"] = LabelledImages(arrays.test_images, arrays.test_labels)
        return self._parts.pop(part)
