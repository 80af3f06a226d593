"""An interrupted run resumes and ends with results that are bit-identical to an uninterrupted run.

python examples/resume.py
"""

import lightning.pytorch as pl
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cifar import ExactResume, LeNet, SyntheticDataModule


class PowerCutError(RuntimeError):
    pass


class PowerCut(Callback):
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if trainer.global_step == 50:  # in the middle of the second epoch
            raise PowerCutError("power failure")


def train(name: str, *more: Callback, ckpt_path: str | None = None) -> LeNet:
    pl.seed_everything(0)
    model = LeNet(lr=0.05, dropout=0.2, schedule="cosine")
    data = SyntheticDataModule(num_train=2000, num_val=200, num_test=200, batch_size=64, augment=["flip"])
    folder = f"runs/examples/resume/{name}"
    trainer = pl.Trainer(max_epochs=3, default_root_dir=folder, logger=False, callbacks=[ExactResume(), *more])
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return model


def main() -> None:
    whole = train("whole")
    try:
        train("broken", PowerCut())
    except PowerCutError as error:
        print("interrupted:", error)
    again = train("broken", ckpt_path="runs/examples/resume/broken/checkpoints/resume.ckpt")
    pairs = zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    print("bit-identical:", all(torch.equal(a, b) for a, b in pairs))


if __name__ == "__main__":
    main()
