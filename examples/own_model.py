"""Your own model: loss, metrics, optimizer and learning-rate schedule are inherited from ``Classifier``.

    python examples/own_model.py

On the command line, with examples/ on the Python path:

    PYTHONPATH=examples lightning-cifar fit --model own_model.TwoRoads --model.width 24 --data SyntheticDataModule
"""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lightning_cifar import Classifier, LossCurves, SyntheticDataModule, list_layers


class Roads(nn.Module):
    """A 3 x 3 and a 5 x 5 convolution of the same input, concatenated along the channels."""

    def __init__(self, num_in: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(num_in, width, 3, padding=1)
        self.wide = nn.Conv2d(num_in, width, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.narrow(x), self.wide(x)], 1).relu()


class TwoRoads(Classifier):
    """Two stages, each with two parallel convolutions.

    Args:
        width: Filters of each convolution of the first stage.
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.
    """

    def __init__(self, width: int = 16, **training: Any) -> None:
        super().__init__(**training)
        self.save_hyperparameters()  # needed to load the model from a checkpoint
        self.network = nn.Sequential(
            *(Roads(self.in_channels, width), nn.MaxPool2d(2)),
            *(Roads(2 * width, 2 * width), nn.AdaptiveAvgPool2d(4), nn.Flatten()),
            nn.Linear(4 * width * 16, self.num_classes),
        )


def main() -> None:
    pl.seed_everything(0)
    model = TwoRoads(width=8, lr=0.003, optimizer="adamw", schedule="cosine", warmup=0.2, label_smoothing=0.1)
    for row in list_layers(model, torch.zeros(1, 3, 32, 32)):
        print(row)
    data = SyntheticDataModule(num_train=3000, num_val=300, num_test=300, batch_size=32)
    trainer = pl.Trainer(max_epochs=3, default_root_dir="runs/examples/own_model", callbacks=[LossCurves()])
    trainer.fit(model, data)
    trainer.test(model, data)


if __name__ == "__main__":
    main()
