"""The most confident mistakes equal those of a full sort."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_cifar.analysis.predictions import Predictions, keep_worst, read_predictions


def make(num: int, num_classes: int = 4, seed: int = 0, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.arange(float(num))[:, None, None, None].expand(-1, 3, 2, 2)
    logits = scale * torch.randn(num, num_classes, generator=generator)
    return images, logits, torch.randint(num_classes, (num,), generator=generator)


def in_batches(parts: tuple[Tensor, Tensor, Tensor], size: int, count: int) -> Predictions:
    kept = None
    for start in range(0, len(parts[0]), size):
        batch = [part[start : start + size] for part in parts]
        indices = torch.arange(start, start + len(batch[0]))
        kept = keep_worst(kept, read_predictions(*batch, indices), count)
    assert kept is not None
    return kept


def test_probabilities() -> None:
    images, logits, labels = make(50)
    found = read_predictions(images, logits, labels, torch.arange(50))
    probabilities, predicted = logits.softmax(1).max(1)
    torch.testing.assert_close(found.probabilities, probabilities)
    assert torch.equal(found.predicted, predicted)
    assert torch.equal(found.wrong, predicted != labels)


@pytest.mark.parametrize("size", [1, 7, 50, 200])
@pytest.mark.parametrize("count", [1, 8, 60, 500])
def test_the_worst_equal_those_of_a_full_sort(size: int, count: int) -> None:
    images, logits, labels = make(200)
    logits[20:40] = logits[:20]  # equally confident: the lower index first
    labels[20:40] = labels[:20]
    found = in_batches((images, logits, labels), size, count)
    probabilities, predicted = logits.double().softmax(1).max(1)
    wrong = [i for i in range(200) if predicted[i] != labels[i]]
    expected = sorted(wrong, key=lambda i: (-float(probabilities[i]), i))[:count]
    kept = Predictions(*(part[found.wrong] for part in found))
    assert kept.indices.tolist() == expected
    assert torch.equal(kept.images, images[expected])
    assert torch.equal(kept.true, labels[expected])
    assert torch.equal(kept.predicted, predicted[expected])
    torch.testing.assert_close(kept.probabilities.double(), probabilities[expected], atol=1e-6, rtol=1e-5)
    assert len(found.indices) == min(count, 200)


def test_probabilities_that_round_to_one_keep_their_order() -> None:
    logits = torch.tensor([[0.0, 30.0], [0.0, 50.0], [0.0, 40.0]])
    found = in_batches((torch.zeros(3, 1, 1, 1), logits, torch.zeros(3, dtype=torch.long)), 1, 3)
    assert found.indices.tolist() == [1, 2, 0]
    assert found.probabilities.tolist() == [1, 1, 1]


def test_ignored_labels_are_not_mistakes() -> None:
    images, logits, _ = make(4, 3)
    found = read_predictions(images, logits, torch.tensor([-1, -100, 3, 255], dtype=torch.int16), torch.arange(4))
    assert found.true.tolist() == [-1] * 4
    assert not found.wrong.any()


def test_a_mistake_that_is_not_finite_comes_last_of_the_mistakes() -> None:
    logits = torch.tensor([[float("nan"), 0.0], [0.0, 0.1], [0.1, 0.0]])
    found = in_batches((torch.zeros(3, 1, 1, 1), logits, torch.tensor([1, 0, 0])), 3, 3)
    assert found.indices.tolist() == [1, 0, 2]
    assert found.wrong.tolist() == [True, True, False]


def test_half_precision_is_read_in_single() -> None:
    images, logits, labels = make(4)
    assert read_predictions(images, logits.bfloat16(), labels, torch.arange(4)).log_odds.dtype == torch.float32


def test_kept_predictions_do_not_keep_the_batch_in_memory() -> None:
    kept = in_batches(make(1000), 100, 5)
    images = 5 * 3 * 2 * 2 * 4  # bytes
    assert kept.images.untyped_storage().nbytes() == images
    assert all(part.untyped_storage().nbytes() <= 5 * 8 for part in kept[1:])
