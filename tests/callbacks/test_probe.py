"""The probe reads the same images each time without side effects."""

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar.callbacks.probe import networks_of, read_probe, read_samples
from lightning_cifar.callbacks.progress import step_of


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
    """Draws from every generator, as a user's transforms may."""

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
        with pytest.raises(ValueError, match="image 10 does not exist, since the validation set has 10"):
            read([3, 10])
        with pytest.raises(ValueError, match="index -1 must be 0 or more"):
            read([-1])
        with pytest.raises(ValueError, match="the validation loader is missing"):
            read([0], loader=[])
        with pytest.raises(ValueError, match=r"images \(N, C, H, W\)"):
            read([0], loader=DataLoader(TensorDataset(torch.zeros(4, 12), LABELS[:4]), batch_size=4))


class ReadSamples(pl.Callback):
    def __init__(self, most: int) -> None:
        self.most, self.steps = most, []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        before = torch.get_rng_state()
        self.inputs, self.targets = read_samples(trainer, self.most, owner="ReadSamples")
        assert torch.equal(torch.get_rng_state(), before)
        self.steps.append(step_of(trainer, pl_module))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.steps.append(step_of(trainer, pl_module))


def read_first(most: int, loader: object, module: pl.LightningModule | None = None) -> ReadSamples:
    probe = ReadSamples(most)
    trainer = pl.Trainer(
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[probe],
        accelerator="cpu",
    )
    trainer.fit(module or Net(), DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5), loader)
    return probe


class Manual(Net):
    """Two optimizers that step in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.members = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:  # type: ignore[override]
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*number of training batches.*")
class TestSamples:
    def test_the_first_of_any_shape(self) -> None:
        vectors, targets = torch.arange(20.0).reshape(10, 2), torch.arange(30.0).reshape(10, 3)
        loader = DataLoader(Loud(vectors, targets), batch_size=4)
        probe = read_first(6, loader)
        assert torch.equal(probe.inputs, vectors[:6])
        assert probe.targets is not None
        assert torch.equal(probe.targets, targets[:6])
        assert len(read_first(99, loader).inputs) == 10

    def test_steps(self) -> None:
        loader = DataLoader(TensorDataset(IMAGES), batch_size=4)
        assert read_first(1, loader).steps == [0, 1, 2, 3, 4]
        assert read_first(1, loader, Manual()).steps == [0, 1, 2, 3, 4]
        assert read_first(1, loader).targets is None

    @pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
    def test_mistakes(self) -> None:
        with pytest.raises(
            ValueError, match="ReadSamples needs validation samples, and the validation loader is missing"
        ):
            read_first(1, None)
        with pytest.raises(ValueError, match=r"ReadSamples needs batches that start with a tensor \(N, ...\)"):
            read_first(1, [{"images": IMAGES}])


def test_networks() -> None:
    module = Manual()
    assert networks_of(module) == dict(module.members.items())
    assert networks_of(net := Net()) == {"": net}
