"""Draw filters and feature maps during training, and occlusion maps of predictions.

python examples/see_inside.py
"""

import lightning.pytorch as pl
import torch

from lightning_cifar import (
    FeatureMaps,
    LeNet,
    OcclusionMaps,
    PredictionGrid,
    SyntheticDataModule,
    WeightGIF,
    artifacts,
    occlusion_map,
)


def main() -> None:
    pl.seed_everything(0)
    data = SyntheticDataModule(num_train=6000, num_val=500, num_test=500, batch_size=32, augment=["flip", {"crop": 2}])
    model = LeNet(lr=0.05, momentum=0.9, schedule="cosine", warmup=0.2)
    trainer = pl.Trainer(
        max_epochs=5,
        default_root_dir="runs/examples/see_inside",
        callbacks=[WeightGIF(every_n_steps=50), FeatureMaps(every_n_epochs=2), OcclusionMaps(), PredictionGrid()],
    )
    trainer.fit(model, data)

    images, labels = next(iter(data.val_dataloader()))
    found = occlusion_map(model, images[:4], labels[:4], window=8, stride=2)
    for name, pixels in zip((data.class_names[k] for k in labels[:4]), found.pixels, strict=True):
        y, x = divmod(int(torch.argmax(pixels)), pixels.shape[1])
        print(f"{name}: covering the region around ({x}, {y}) lowers the probability most, by {pixels.max():.0%}")
    print("pictures:", artifacts.run_folder(trainer) / "pictures")


if __name__ == "__main__":
    main()
