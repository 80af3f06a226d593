"""Random numbers are a pure function of their address and pass simple tests of randomness."""

import torch

from lightning_cifar.data.counter_rng import bits, key, permutation, uniform


def test_a_draw_depends_only_on_its_address() -> None:
    everything = uniform(7, 3, range(4), torch.arange(1000))
    some = torch.tensor([900, 5, 77])
    assert torch.equal(uniform(7, 3, range(4), some), everything[:, some])
    assert torch.equal(uniform(7, 3, range(2, 3), some), everything[2:3, some])


def test_each_part_of_the_address_matters() -> None:
    indices = torch.arange(100)
    base = uniform(0, 0, range(1), indices)
    others = [uniform(1, 0, range(1), indices), uniform(0, 1, range(1), indices), uniform(0, 0, range(1, 2), indices)]
    for other in others:
        assert (base == other).sum() <= 1


def test_uniform_over_samples_epochs_and_streams() -> None:
    values = torch.stack([uniform(0, epoch, range(5), torch.arange(2000)) for epoch in range(10)])
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.histc(values, 20, 0, 1)
    expected = values.numel() / 20
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 50  # 19 degrees of freedom: the 99.99 % point
    flat = values.flatten(1).flatten()
    correlation = torch.corrcoef(torch.stack([flat[:-1], flat[1:]]))[0, 1]
    assert abs(correlation) < 0.02


def test_reference_values_of_splitmix64() -> None:
    # The first outputs of the published generator for state 0, after one and two additions of its constant.
    assert key(0) & (2**64 - 1) == 0xE220A8397B1DCDAF
    state = torch.tensor([0])
    assert bits(0, 0, range(1), state).dtype == torch.int64


def test_permutation_is_one_and_changes_with_the_epoch() -> None:
    first, second = permutation(0, 0, 5000), permutation(0, 1, 5000)
    assert torch.equal(first.sort().values, torch.arange(5000))
    assert (first == second).float().mean() < 0.01
    assert torch.equal(first, permutation(0, 0, 5000))
