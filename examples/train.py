"""Train, validate and test a network, with pictures in runs/examples/train. Half a minute on two cores.

python examples/train.py
"""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_cifar import ClassAccuracy, LeNet, LossCurves, SampleGrid, SyntheticDataModule


def main() -> None:
    pl.seed_everything(0)
    # For CIFAR-10: CIFAR10DataModule("data", download=True, ...).
    data = SyntheticDataModule(num_train=6000, num_val=500, num_test=500, batch_size=32, augment=["flip", {"crop": 2}])
    model = LeNet(lr=0.05, momentum=0.9, schedule="cosine", warmup=0.2)
    best = ModelCheckpoint(monitor="val/accuracy", mode="max")
    trainer = pl.Trainer(
        max_epochs=5,
        logger=[TensorBoardLogger("runs/examples", "train", ""), CSVLogger("runs/examples", "train", "")],
        callbacks=[best, LossCurves(), ClassAccuracy(), SampleGrid()],
    )
    trainer.fit(model, data)
    trainer.test(model, data, ckpt_path="best", weights_only=True)
    print("best checkpoint:", best.best_model_path)


if __name__ == "__main__":
    main()
