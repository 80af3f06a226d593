"""The pictures show the weights of the layer when they are drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightning_cifar.analysis.filters import scale_filters
from lightning_cifar.callbacks import FilterImages
from lightning_cifar.plots import draw_filters

MakeTrainer = Callable[..., Trainer]


class Batches:
    """Two steps per epoch."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.linspace(-1, 1, 216).reshape(2, 3, 6, 6)] * 2)


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 20, 2)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.second(self.first(batch)).square().mean()
        assert isinstance(loss, Tensor)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each figure, with its values."""
    calls: list[dict[str, Any]] = []

    def record(values: Any, **options: Any) -> Figure:
        calls.append({"values": values, **options})
        return draw_filters(values, **options)

    monkeypatch.setattr("lightning_cifar.plots.filters.draw_filters", record)
    return calls


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.png")}


def test_the_end_and_every_second_epoch(make_trainer: MakeTrainer, tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    module = Net()
    make_trainer(FilterImages(every_n_epochs=2), FilterImages("second"), max_epochs=5).fit(module, Batches())
    assert files(tmp_path / "pictures") == {
        *("filters.png", "filters/epoch_2.png", "filters/epoch_4.png", "filters_second.png"),
    }
    assert [call["title"] for call in drawn] == [
        "Net, first: 4 filters of 3 x 3 x 3 weights\nafter 2 epochs, step 4",
        "Net, first: 4 filters of 3 x 3 x 3 weights\nafter 4 epochs, step 8",
        "Net, first: 4 filters of 3 x 3 x 3 weights\nafter 5 epochs, step 10",
        "Net, second: 20 filters of 4 x 2 x 2 weights\nafter 5 epochs, step 10",
    ]
    final = scale_filters(module.first.weight.detach().numpy())
    assert np.array_equal(drawn[2]["values"], final)
    assert not np.array_equal(drawn[1]["values"], final)
    assert [call["color"] for call in drawn] == [True, True, True, False]


def test_one_scale_and_single_channels(make_trainer: MakeTrainer, drawn: list[dict[str, Any]]) -> None:
    module = Net()
    make_trainer(FilterImages(mode="channels", scaling="shared", columns=3)).fit(module, Batches())
    weights = module.first.weight.detach().numpy()
    (call,) = drawn
    assert (call["color"], call["columns"], call["limit"]) == (False, 3, np.abs(weights).max())
    np.testing.assert_allclose(call["values"], 0.5 + weights / (2 * call["limit"]), atol=1e-6)


def test_of_a_large_layer_a_part_is_shown_and_stated(make_trainer: MakeTrainer, drawn: list[dict[str, Any]]) -> None:
    make_trainer(FilterImages("second", max_kernels=41)).fit(Net(), Batches())
    assert drawn[0]["values"].shape == (20, 2, 2, 2)
    assert "20 filters of 4 x 2 x 2 weights, input channels 0 to 1\n" in drawn[0]["title"]


def test_an_interrupted_run_has_its_picture(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, *_: object) -> None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        make_trainer(FilterImages(), Stop()).fit(Net(), Batches())
    assert files(tmp_path / "pictures") == {"filters.png"}


@pytest.mark.usefixtures("other_rank")
def test_another_rank_draws_nothing(make_trainer: MakeTrainer, tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    make_trainer(FilterImages(every_n_epochs=1)).fit(Net(), Batches())
    assert not drawn
    assert not files(tmp_path)


def test_pyplot_is_never_needed(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it is an error from here
    make_trainer(FilterImages("second", scaling="shared")).fit(Net(), Batches())
    assert files(tmp_path / "pictures") == {"filters_second.png"}


def test_mistakes(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"every_n_epochs \(=0\) must be at least 1"):
        FilterImages(every_n_epochs=0)
    with pytest.raises(ValueError, match=r"columns \(=0\) must be at least 1"):
        FilterImages(columns=0)
    with pytest.raises(ValueError, match=r"max_kernels \(=0\) must be 1 to 256"):
        FilterImages(max_kernels=0)
    with pytest.raises(ValueError, match="Net has no layer 'frist': did you mean first"):
        make_trainer(FilterImages("frist")).fit(Net(), Batches())
    with pytest.raises(ValueError, match="mode rgb needs filters of 3 input channels, not 4"):
        make_trainer(FilterImages("second", mode="rgb")).fit(Net(), Batches())
    assert not files(tmp_path)
