"""MNIST and Fashion-MNIST: 70,000 grey images of 28 x 28 pixels in ten classes each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning_cifar.data.idx import read_labelled
from lightning_cifar.data.image_datamodule import ImageDataModule, LabelledImages
from lightning_cifar.data.sources import FASHION_MNIST, MNIST, IdxSource, download_idx
from lightning_cifar.files.paths import expand_user


class MNISTDataModule(ImageDataModule):
    """Handwritten digits (LeCun et al., 1998, doi:10.1109/5.726791), from the official idx files.

    The files are, packed or unpacked, in ``root/MNIST/raw``, as for torchvision, or in ``root``. The file names of
    Kaggle (``train-images.idx3-ubyte``) are accepted too. By default, 5,000 of the 60,000 official training images are
    for validation.

    Args:
        root: Folder of the data.
        download: Whether to download missing files to ``root`` (12 MB).
        verify: Whether to compare with the official checksums. False reads an unofficial copy.
        url: Address of a folder with the files, instead of the known mirrors.
        augment: See :class:`~lightning_cifar.data.image_datamodule.ImageDataModule`; none by default, because a
            mirrored digit is not a digit.
        **loading: See :class:`~lightning_cifar.data.image_datamodule.ImageDataModule`.

    Raises:
        FileNotFoundError: In ``setup``, if a file is missing.
        ValueError: In ``setup``, if a file is truncated, altered or has other content.

    Example:
        >>> data = MNISTDataModule("data", augment=[{"crop": 2}])
        >>> data.in_channels, data.image_size, data.num_classes
        (1, 28, 10)
    """

    source: ClassVar[IdxSource] = MNIST
    class_names = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    in_channels = 1
    image_size = 28
    own_mean = (0.1307,)
    own_std = (0.3081,)

    def __init__(
        self,
        root: str | Path = "data",
        *,
        download: bool = False,
        verify: bool = True,
        url: str | None = None,
        augment: Sequence[str | dict[str, Any]] = (),
        **loading: Any,
    ) -> None:
        super().__init__(augment=augment, **loading)
        self.root = expand_user(root)
        self.download, self.verify, self.url = download, verify, url

    def prepare_data(self) -> None:
        if self.download:
            download_idx(self.root, self.source, url=self.url)

    def load(self, part: Literal["train", "test"]) -> LabelledImages:
        return LabelledImages(*read_labelled(self.root, self.source, part, verify=self.verify))


class FashionMNISTDataModule(MNISTDataModule):
    """Images of clothes in the format of MNIST (Xiao et al., arXiv:1708.07747), from the official idx files.

    The files are, packed or unpacked, in ``root/FashionMNIST/raw``, as for torchvision, or in ``root``.

    Args:
        root: Folder of the data.
        download: Whether to download missing files to ``root`` (31 MB).
        verify: Whether to compare with the official checksums. False reads an unofficial copy.
        url: Address of a folder with the files, instead of the known mirrors.
        augment: See :class:`~lightning_cifar.data.image_datamodule.ImageDataModule`; none by default.
        **loading: See :class:`~lightning_cifar.data.image_datamodule.ImageDataModule`.

    Example:
        >>> FashionMNISTDataModule("data").class_names[0]
        't-shirt'
    """

    source = FASHION_MNIST
    # The official first name is "T-shirt/top"; a slash would make two levels in the name of a metric.
    class_names = (
        *("t-shirt", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    own_mean = (0.2860,)
    own_std = (0.3530,)
