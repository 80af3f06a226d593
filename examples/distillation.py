"""Distillation: a small network also learns the probabilities of a trained one (Hinton et al., arXiv:1503.02531).

    python examples/distillation.py

On the command line, with examples/ on the Python path and any checkpoint of this package as the teacher:

    PYTHONPATH=examples lightning-cifar fit --config configs/dilated_net.yaml --model distillation.DistilledDilatedNet
        --model.teacher runs/teacher/checkpoints/best.ckpt
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_cifar import Classifier, DilatedNet, LeNet, SyntheticDataModule, load_trained


class Distilled(Classifier):
    """The loss is ``(1 - weight) * loss + weight * T**2 * KL(teacher, student)``, with both logits divided by ``T``.

    Both networks receive the same augmented images. Not for mixup and cutmix, of which the teacher would not know.

    Args:
        teacher: Checkpoint of the teacher, which has the same classes and size of images.
        weight: Share of the teacher in the loss, from 0 to 1.
        temperature: ``T``; higher values show more of the differences between improbable classes.
        **settings: Those of the network.
    """

    def __init__(self, teacher: str, weight: float = 0.9, temperature: float = 2.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.teacher, self.weight, self.temperature = teacher, weight, temperature
        self._ask: Any = None  # set in fit: a function, so that the teacher is neither trained nor saved

    def on_fit_start(self) -> None:
        teacher = load_trained(Path(self.teacher))
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # set untyped
        network = teacher.model.requires_grad_(False).to(self.device)
        # From the normalisation of the student's images to that of the teacher's.
        ours, theirs = (
            [torch.tensor(value, device=self.device).view(-1, 1, 1) for value in (source.mean, source.std)]
            for source in (data, teacher)
        )
        scale, shift = ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]
        self._ask = lambda images: network(images * scale + shift)

    def training_loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        loss, logits = super().training_loss(batch)
        with torch.no_grad():
            wanted = self._ask(batch[0])
        student, teacher = ((each.float() / self.temperature).log_softmax(1) for each in (logits, wanted))
        distance = torch.nn.functional.kl_div(student, teacher, log_target=True, reduction="batchmean")
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * distance, logits


class DistilledDilatedNet(Distilled, DilatedNet):
    """DilatedNet as the student."""


class DistilledLeNet(Distilled, LeNet):
    """LeNet as the student."""


def train(model: Classifier, epochs: int) -> pl.Trainer:
    pl.seed_everything(0)
    trainer = pl.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.fit(model, SyntheticDataModule(num_train=3000, num_val=300, num_test=300, batch_size=32))
    print(f"{type(model).__name__}: validation accuracy {trainer.callback_metrics['val/accuracy']:.1%}")
    return trainer


def main() -> None:
    settings: dict[str, Any] = {"lr": 0.003, "optimizer": "adamw", "schedule": "cosine", "warmup": 0.2}
    teacher = "runs/examples/distillation/teacher.ckpt"
    train(LeNet(hidden=(240, 120), **settings), epochs=5).save_checkpoint(teacher)
    for student in (LeNet(**settings), DistilledLeNet(teacher, **settings)):
        train(student, epochs=2)


if __name__ == "__main__":
    main()
