"""The sheet shows the batch that the network receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from lightning_cifar.callbacks import SampleGrid, sample_grid

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    drawn: dict[str, Figure] = {}

    def keep(trainer: Trainer, name: str, figure: Figure, *, tag: str) -> None:
        assert name not in drawn
        drawn[name] = figure

    monkeypatch.setattr(sample_grid, "save_figure", keep)
    return drawn


def shown(figure: Figure) -> np.ndarray:
    return np.stack([np.asarray(image.get_array()) for image in figure.axes[0].images])


def titles(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_first_batches_of_training_and_validation(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]
) -> None:
    data.on_after_batch_transfer = lambda batch, _: (batch[0] - 0.25 * data.trainer.training, batch[1])  # "augment"
    make_trainer(SampleGrid(), max_epochs=2, num_sanity_val_steps=2).fit(make_module(), data)
    assert set(figures) == {"samples_train", "samples_val"}
    plain = data.images[:4].movedim(1, -1).numpy() * np.array(data.std) + np.array(data.mean)
    np.testing.assert_allclose(shown(figures["samples_val"]), plain, atol=1e-6)
    np.testing.assert_allclose(shown(figures["samples_train"]), plain - 0.25 * np.array(data.std), atol=1e-6)
    assert titles(figures["samples_val"]) == ["cat", "dog", "cat", "automobile"]


def test_files_and_loggers(data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path, name="", version="")
    trainer = make_trainer(SampleGrid(), logger=board)
    trainer.fit(make_module(), data)
    trainer.test(make_module(), data, verbose=False)
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "samples_train.png",
        "samples_val.png",
        "samples_test.png",
    }
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("samples/train")] == [0]


def test_grey_images_of_an_external_module_without_a_data_module(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]
) -> None:
    data.images = (data.images.argmax(dim=1, keepdim=True) - 1.0).to(torch.bfloat16)  # -1, 0 or 1
    module = make_module(lambda logits: logits)
    module.test_step = lambda batch, batch_idx: None
    make_trainer(SampleGrid(rows=1, columns=3)).test(module, data.loader(), verbose=False)
    figure = figures["samples_test"]
    np.testing.assert_allclose(shown(figure)[:, 0, 0], [0, 0, 1])  # stretched from the lowest to the highest shown
    assert titles(figure) == ["0", "1", "0"]
    assert figure.axes[0].images[0].get_cmap().name == "gray"


def test_labels_that_are_not_classes_give_no_titles(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]
) -> None:
    data.labels = torch.nn.functional.one_hot(data.labels, 3).float()
    make_trainer(SampleGrid()).fit(make_module(), data)
    assert set(titles(figures["samples_train"])) <= {""}


def test_the_random_state_does_not_move(data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Shuffled:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in torch.randperm(11).split(4):
                yield data.images[batch], data.labels[batch]

        def __len__(self) -> int:
            return 3

    def state_after(*callbacks: SampleGrid) -> Tensor:
        torch.manual_seed(3)
        make_trainer(*callbacks).fit(make_module(), Shuffled(), Shuffled())
        return torch.get_rng_state()

    assert torch.equal(state_after(SampleGrid()), state_after())
    assert (tmp_path / "pictures/samples_train.png").is_file()


def test_batches_that_are_not_images_cause_one_warning(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure], own_warnings: Any
) -> None:
    data.images = torch.zeros(11, 5, 2, 2)
    module = make_module(lambda logits: logits)
    module.test_step = lambda batch, batch_idx: None
    trainer = make_trainer(SampleGrid())
    with pytest.warns(UserWarning, match=r"images \(N, C, H, W\), C 1 or 3") as caught:
        trainer.test(module, data, verbose=False)
    trainer.test(module, data, verbose=False)  # another warning would be an error
    assert len(own_warnings(caught, "SampleGrid")) == 1
    assert not figures


@pytest.mark.usefixtures("other_rank")
def test_another_rank_draws_nothing(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]
) -> None:
    make_trainer(SampleGrid()).fit(make_module(), data)
    assert not figures


def test_an_empty_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows \(=0\) must be at least 1"):
        SampleGrid(rows=0)
