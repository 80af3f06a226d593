"""A loss or gradient that is not finite does not change the weights."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar.callbacks import NonFiniteGuard
from lightning_cifar.callbacks.non_finite_guard import NonFiniteError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*smaller than the logging interval.*"
)


class Net(pl.LightningModule):
    """Its loss or a gradient is not finite at chosen steps."""

    def __init__(self, bad: dict[int, str], batch_norm: bool = False) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8) if batch_norm else nn.Tanh(), nn.Linear(8, 2))
        self.bad, self.steps = bad, 0
        self.history: list[Tensor] = []

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        self.history.append(self.network[0].weight.detach().clone())
        kind, self.steps = self.bad.get(self.steps), self.steps + 1
        x = batch[0] * float("nan") if kind == "input" else batch[0]
        output = self.network(x)
        if kind == "gradient":
            output.register_hook(lambda grad: grad * float("inf"))
        loss = nn.functional.cross_entropy(output, batch[1])
        return loss * float("nan") if kind == "loss" else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(net: Net, guard: NonFiniteGuard | None, folder: Path, **kwargs: Any) -> pl.Trainer:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(32, 4), torch.randint(0, 2, (32,)))
    trainer = pl.Trainer(
        max_epochs=2,
        logger=False,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[guard] if guard else [],
        **kwargs,
    )
    trainer.fit(net, DataLoader(data, batch_size=4))
    return trainer


@pytest.mark.parametrize("kind", ["loss", "gradient", "input"])
def test_stops_before_the_step(kind: str, tmp_path: Path) -> None:
    net = Net({11: kind})
    with pytest.raises(NonFiniteError, match=r"at step 11 \(epoch 1, batch 3\): lower the learning rate"):
        fit(net, NonFiniteGuard(), tmp_path)
    assert net.steps == 12
    assert torch.equal(net.network[0].weight, net.history[-1])


def test_without_it_the_weights_are_lost(tmp_path: Path) -> None:
    net = Net({11: "loss"})
    fit(net, None, tmp_path)
    assert torch.isnan(net.network[0].weight).all()


def test_a_skipped_step_leaves_weights_and_optimizer(tmp_path: Path) -> None:
    net, guard = Net({3: "loss", 5: "gradient"}), NonFiniteGuard("skip")
    with pytest.warns(UserWarning, match="2 steps were skipped"):
        trainer = fit(net, guard, tmp_path)
    for step in (3, 5):
        assert torch.equal(net.history[step], net.history[step + 1])
    assert not torch.equal(net.history[4], net.history[5])
    assert torch.isfinite(net.network[0].weight).all()
    assert guard.num_skipped == 2
    (optimizer,) = trainer.optimizers
    assert int(optimizer.state[net.network[0].weight]["step"]) == 14


def test_too_many_in_a_row_stop(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"at step 7 .* 3 steps in a row were skipped"):
        fit(Net(dict.fromkeys(range(4, 20), "loss")), NonFiniteGuard("skip", 3), tmp_path)


def test_a_good_step_ends_the_row(tmp_path: Path) -> None:
    guard = NonFiniteGuard("skip", 3)
    with pytest.warns(UserWarning, match="6 steps were skipped"):
        fit(Net(dict.fromkeys((4, 5, 6, 8, 9, 10), "loss")), guard, tmp_path)
    assert guard.num_skipped == 6


def test_running_statistics_that_are_not_finite_cannot_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"cannot be skipped: network\.1\.running_mean is not finite"):
        fit(Net({3: "input"}, batch_norm=True), NonFiniteGuard("skip"), tmp_path)


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"at step 2 \(epoch 0, batch 5\)"):
        fit(Net({4: "loss"}), NonFiniteGuard(), tmp_path, accumulate_grad_batches=2)


def test_a_finite_training_does_not_change(tmp_path: Path) -> None:
    nets = []
    for guard in (None, NonFiniteGuard(), NonFiniteGuard("skip")):
        torch.manual_seed(1)
        nets.append(Net({}))
        fit(nets[-1], guard, tmp_path)
    for net in nets[1:]:
        assert torch.equal(net.network[0].weight, nets[0].network[0].weight)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"action": "go"}, "must be stop or skip"), ({"max_skipped": 0}, "at least 1")]
)
def test_bad_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NonFiniteGuard(**arguments)
