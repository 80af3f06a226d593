"""The noisy line: slope, noise of the given size, and independent splits."""

from itertools import chain
from typing import Any

import pytest
import torch

from lightning_cifar.data import NoisyLineDataModule


def test_points_are_around_the_line() -> None:
    data = NoisyLineDataModule(num_points=4000)
    for split in ("train", "val", "test"):
        x, y = data.points(split)  # type: ignore[arg-type]
        assert x.shape == y.shape == (4000, 1)
        torch.testing.assert_close(x[:, 0], torch.linspace(-1, 1, 4000))
        noise = (y - x) / 0.3
        # Six standard errors of mean, spread and kurtosis of so many normal numbers.
        assert noise.mean().abs() < 0.1
        assert (noise.std() - 1).abs() < 0.07
        assert ((noise**4).mean() - 3).abs() < 0.93


def test_splits_have_different_noise() -> None:
    data = NoisyLineDataModule(num_points=4000)
    noises = [data.points(split).y - data.points(split).x for split in ("train", "val", "test")]  # type: ignore[arg-type]
    correlation = torch.corrcoef(torch.cat(noises, dim=1).T)
    assert (correlation - torch.eye(3)).abs().max() < 0.1


def test_the_default_is_the_published_data() -> None:
    data = NoisyLineDataModule()
    (x, y), *rest = data.train_dataloader()
    assert x.shape == y.shape == (50, 1)
    assert x.dtype == y.dtype == torch.float32
    assert len(rest) == 49
    assert all(torch.equal(x, again) and torch.equal(y, value) for again, value in rest)
    assert (x[0], x[-1]) == (-1, 1)
    assert len(data.val_dataloader()) == len(data.test_dataloader()) == 1


def test_noise_depends_only_on_the_data_seed() -> None:
    torch.manual_seed(1)
    first = NoisyLineDataModule(seed=1).points("train").y
    torch.manual_seed(2)
    assert torch.equal(NoisyLineDataModule(seed=2).points("train").y, first)
    assert not torch.equal(NoisyLineDataModule(data_seed=1).points("train").y, first)
    more = NoisyLineDataModule(num_points=60, slope=0.0).points("train").y
    assert torch.equal(more[:50], NoisyLineDataModule(slope=0.0).points("train").y)
    assert torch.equal(NoisyLineDataModule(noise=0.0, slope=2.0).points("val").y[:, 0], 2 * torch.linspace(-1, 1, 50))


def test_small_batches_cover_each_pass_in_a_new_order() -> None:
    data = NoisyLineDataModule(num_points=10, batch_size=4, passes=3, seed=5)
    loader = data.train_dataloader()

    def epoch(number: int) -> list[list[float]]:
        loader.set_epoch(number)
        batches = [x[:, 0].tolist() for x, _ in loader]
        assert [len(batch) for batch in batches] == [4, 4, 2] * 3
        assert len(loader) == 9
        passes = [list(chain.from_iterable(batches[i : i + 3])) for i in (0, 3, 6)]
        places = torch.linspace(-1, 1, 10).tolist()
        assert all(sorted(one) == places for one in passes)
        return passes

    orders = [*epoch(0), *epoch(1)]
    assert len({tuple(order) for order in orders}) == 6
    assert epoch(0) == orders[:3]
    for x, y in loader:  # a point keeps its value
        index = ((x[:, 0] + 1) * 4.5).round().long()
        assert torch.equal(data.points("train").y[index], y)


def test_a_resumed_run_sees_the_same_batches() -> None:
    torch.manual_seed(3)
    data = NoisyLineDataModule(batch_size=7)
    first = next(iter(data.train_dataloader()))[0]
    torch.manual_seed(4)
    other = NoisyLineDataModule(batch_size=7)
    assert not torch.equal(next(iter(other.train_dataloader()))[0], first)
    other.load_state_dict(data.state_dict())
    assert torch.equal(next(iter(other.train_dataloader()))[0], first)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_points": 1}, r"num_points \(=1\) must be at least 2"),
        ({"noise": -0.1}, r"noise \(=-0.1\) must be 0 or a positive number"),
        ({"noise": float("nan")}, r"noise \(=nan\)"),
        ({"slope": float("inf")}, r"slope \(=inf\) must be a number"),
        ({"batch_size": 0}, r"batch_size \(=0\) must be at least 1, or null"),
        ({"passes": 0}, r"passes \(=0\) must be at least 1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisyLineDataModule(**settings)


def test_ranks_share_the_points() -> None:
    class Rank:
        def __init__(self, rank: int) -> None:
            self.global_rank, self.world_size = rank, 3
            self.strategy = type("Strategy", (), {"root_device": torch.device("cpu")})

    shares: dict[bool, list[list[float]]] = {True: [], False: []}
    for rank in range(3):
        data = NoisyLineDataModule(num_points=50, passes=1)
        data.trainer = Rank(rank)  # type: ignore[assignment]
        shares[True].append(next(iter(data.train_dataloader()))[0][:, 0].tolist())
        shares[False].append(next(iter(data.val_dataloader()))[0][:, 0].tolist())
    assert [len(share) for share in shares[True]] == [16, 16, 16]  # as many steps on each rank
    assert (
        sorted(chain.from_iterable(shares[False])) == torch.linspace(-1, 1, 50).tolist()
    )  # and each point evaluated once


def test_str_makes_no_loader() -> None:
    assert str(NoisyLineDataModule()) == "NoisyLineDataModule(num_points=50, noise=0.3, slope=1.0)"
