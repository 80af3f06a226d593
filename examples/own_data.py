"""Your own images: from arrays, and from a folder with one folder per class.

python examples/own_data.py
"""

from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import numpy as np
from PIL import Image

from lightning_cifar import ImageDataModule, ImageFolderDataModule, LeNet
from lightning_cifar.data.image_datamodule import LabelledImages


class Stripes(ImageDataModule):
    """Horizontal, vertical or diagonal stripes in random colours. Split, loaders and augmentation are inherited."""

    class_names = ("across", "down", "aslant")
    own_mean = (0.5, 0.5, 0.5)
    own_std = (0.3, 0.3, 0.3)

    def load(self, part: Literal["train", "test"]) -> LabelledImages:
        images, labels = draw(1200 if part == "train" else 300, seed=0 if part == "train" else 1)
        return LabelledImages(images, labels)


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw uint8 images (N, 32, 32, 3) and labels (N,)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    y, x = np.mgrid[:32, :32]
    place = np.stack([y, x, (x + y) / 1.4])[labels] + generator.uniform(0, 9, (count, 1, 1))
    light = 0.5 + 0.5 * np.sin(place * generator.uniform(0.6, 1.2, (count, 1, 1)))
    colour = generator.uniform(0.3, 1, (count, 1, 1, 3))
    noisy = light[..., None] * colour + generator.normal(0, 0.1, (count, 32, 32, 3))
    return (255 * noisy.clip(0, 1)).astype(np.uint8), labels


def write_folder(root: Path) -> None:
    """Write the images as files: root/across/0.png and so on."""
    images, labels = draw(240, seed=2)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / Stripes.class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")


def main() -> None:
    pl.seed_everything(0)
    out = Path("runs/examples/own_data")
    arrays = Stripes(num_val=200, batch_size=50)
    model = LeNet(num_classes=3, lr=0.02, schedule="cosine")
    trainer = pl.Trainer(max_epochs=3, default_root_dir=out)
    trainer.fit(model, arrays)
    trainer.test(model, arrays)

    write_folder(out / "stripes")
    folder = ImageFolderDataModule(out / "stripes", image_size=32, batch_size=20)
    model = LeNet(num_classes=3, lr=0.02)
    trainer = pl.Trainer(max_epochs=3, default_root_dir=out, log_every_n_steps=5)
    trainer.fit(model, folder)
    print("classes of the folder:", folder.class_names)


if __name__ == "__main__":
    main()
