"""The probe reads the same images each time and disturbs nothing."""

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar.callbacks.probe import read_probe


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 2)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int, dataloader_idx: int = 0) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Read(pl.Callback):
    def __init__(self, indices: list[int]) -> None:
        self.indices = indices

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
        self.images, self.labels = read_probe(trainer, self.indices, owner="Read")
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


IMAGES = torch.arange(10.0)[:, None, None, None].expand(10, 3, 2, 2).contiguous()
LABELS = torch.arange(10) % 2


class Loud(TensorDataset):
    """Draws from every generator, as a stranger's transforms do."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
        return super().__getitem__(index)


def read(indices: list[int], *, loader: object = None) -> Read:
    probe = Read(indices)
    trainer = pl.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[probe],
        accelerator="cpu",
    )
    train = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5)
    val = DataLoader(Loud(IMAGES, LABELS), batch_size=4) if loader is None else loader
    trainer.fit(Net(), train, val)
    return probe


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*number of training batches.*", "ignore:Total length of `list`.*"
)
class TestProbe:
    def test_images_in_the_order_asked_across_batches(self) -> None:
        probe = read([9, 0, 5, 0])
        assert probe.images[:, 0, 0, 0].tolist() == [9, 0, 5, 0]
        assert probe.labels is not None
        assert probe.labels.tolist() == [1, 0, 1, 0]

    def test_several_loaders(self) -> None:
        loaders = [DataLoader(TensorDataset(IMAGES + shift, LABELS), batch_size=4) for shift in (0, 100)]
        assert read([3], loader=loaders).images[0, 0, 0, 0] == 3

    def test_mistakes(self) -> None:
        with pytest.raises(ValueError, match="there is no image 10, the validation set has 10"):
            read([3, 10])
        with pytest.raises(ValueError, match="index -1 must be 0 or more"):
            read([-1])
        with pytest.raises(ValueError, match="there is no validation loader"):
            read([0], loader=[])
        with pytest.raises(ValueError, match=r"images \(N, C, H, W\)"):
            read([0], loader=DataLoader(TensorDataset(torch.zeros(4, 12), LABELS[:4]), batch_size=4))
