"""A user's module and data, without classes of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

NAMES = ("cat", "dog", "automobile")


class Batches:
    """A loader that splits fixed tensors; the last batch is smaller."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int) -> None:
        self.batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


class ExternalData(LightningDataModule):
    """Eleven 3x2x2 images of three classes; the mean of channel k is large if the module predicts k."""

    class_names = NAMES
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.25, 0.5)

    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.labels = torch.tensor([0, 1, 0, 2, 1, 0, 0, 1, 2, 2, 2])
        self.predictions = torch.tensor([0, 0, 2, 2, 1, 0, 0, 0, 2, 2, 1])
        brightness = torch.nn.functional.one_hot(self.predictions, 3).float() * 0.9
        self.images = brightness[:, :, None, None].expand(-1, -1, 2, 2).contiguous()

    def loader(self) -> Batches:
        return Batches(self.images, self.labels, self.batch_size)

    train_dataloader = val_dataloader = test_dataloader = loader


class ExternalModule(LightningModule):
    """Logits are the channel means times a weight that training does not change: lr is 0."""

    def __init__(self, returns: Callable[[Tensor], object] = lambda logits: {"logits": logits}) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.layer.weight)
        self.returns = returns

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.layer(images.mean(dim=(2, 3))), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> object:
        return self.returns(self.layer(batch[0].mean(dim=(2, 3))))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> object:
        return self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.fixture
def data() -> ExternalData:
    return ExternalData()


@pytest.fixture
def make_module() -> type[ExternalModule]:
    return ExternalModule


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    def make(*callbacks: object, **kwargs: Any) -> Trainer:
        defaults: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "default_root_dir": tmp_path,
        }
        return Trainer(callbacks=list(callbacks), **(defaults | kwargs))

    return make


@pytest.fixture
def other_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer behaves as on a rank other than zero."""
    monkeypatch.setattr(Trainer, "is_global_zero", property(lambda self: False))


@pytest.fixture
def own_warnings() -> Callable[[pytest.WarningsRecorder, str], list[str]]:
    """Select the messages that start with a name, without those of Lightning."""

    def select(caught: pytest.WarningsRecorder, name: str) -> list[str]:
        return [str(warning.message) for warning in caught if str(warning.message).startswith(name)]

    return select
