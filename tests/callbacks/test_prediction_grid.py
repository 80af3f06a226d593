"""The sheets show the predictions of a batch, and the same mistakes as a full sort."""

from __future__ import annotations

import csv
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar.callbacks import PredictionGrid, prediction_grid

MakeTrainer = Callable[..., Trainer]

CROSS = "\N{BALLOT X}"
HEADER = ["index", "true", "predicted", "probability"]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    drawn: dict[str, Figure] = {}

    def keep(trainer: Trainer, name: str, figure: Figure, *, tag: str) -> None:
        assert name not in drawn
        drawn[name] = figure

    monkeypatch.setattr(prediction_grid, "save_figure", keep)
    return drawn


def read(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def headline(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


def shown(figure: Figure) -> np.ndarray:
    return np.stack([np.asarray(drawn.get_array()) for drawn in figure.axes[0].images])


def certain(data: Any) -> Any:
    """The eleven images with different confidences: image i is brighter than image i - 1."""
    data.images = data.images * (1 + torch.arange(11.0)[:, None, None, None])
    return data


def expected_rows(data: Any) -> list[tuple[int, str, str, float]]:
    probabilities, predicted = data.images.mean(dim=(2, 3)).softmax(dim=1).max(dim=1)
    rows = [
        (i, data.class_names[data.labels[i]], data.class_names[predicted[i]], float(probabilities[i]))
        for i in range(11)
        if predicted[i] != data.labels[i]
    ]
    return sorted(rows, key=lambda row: -row[3])


@pytest.mark.parametrize(("batch_size", "wrap"), [(1, True), (4, False), (11, True)])
def test_the_most_confident_mistakes_of_the_whole_set(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path, batch_size: int, wrap: bool
) -> None:
    certain(data).batch_size = batch_size
    make_trainer(PredictionGrid(rows=1, columns=3)).test(
        make_module(lambda logits: {"logits": logits} if wrap else logits), data, verbose=False
    )
    header, *rows = read(tmp_path / "mistakes_test.csv")
    assert header == HEADER
    expected = expected_rows(data)
    assert len(expected) == 4
    assert [(int(i), true, predicted) for i, true, predicted, _ in rows] == [row[:3] for row in expected[:3]]
    assert [float(row[3]) for row in rows] == pytest.approx([row[3] for row in expected[:3]])
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"predictions_test.png", "mistakes_test.png"}


def test_the_sheets(data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]) -> None:
    certain(data).mean = None
    data.images /= data.images.max()
    make_trainer(PredictionGrid(rows=1, columns=3)).test(make_module(), data, verbose=False)
    pixels = data.images.movedim(1, -1).numpy()
    batch, mistakes = figures["predictions_test"], figures["mistakes_test"]
    np.testing.assert_allclose(shown(batch), pixels[:3])
    probabilities = data.images.mean(dim=(2, 3)).softmax(dim=1).max(dim=1).values
    percent = [f"{100 * float(value):.0f} %" for value in probabilities]
    assert texts(batch) == [
        f"cat {percent[0]}",
        f"{CROSS} cat {percent[1]}",
        "is dog",
        f"{CROSS} automobile {percent[2]}",
        "is cat",
    ]
    assert len(batch.axes[0].patches) == 2
    assert headline(batch) == "Predictions for 3 test images, 2 of them wrong"
    np.testing.assert_allclose(shown(mistakes), pixels[[10, 7, 2]])
    assert texts(mistakes)[:3] == [f"{CROSS} dog {percent[10]}", "is automobile", "image 10"]
    assert headline(mistakes) == "The 3 most confident of 4 mistakes on 11 test images"


def test_fit_draws_its_last_validation(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure], tmp_path: Path
) -> None:
    # The sanity steps see four samples more, which must not count.
    make_trainer(PredictionGrid(), max_epochs=3, num_sanity_val_steps=1).fit(make_module(), certain(data))
    assert set(figures) == {"predictions_val", "mistakes_val"}
    assert headline(figures["predictions_val"]) == "Predictions for 4 validation images, 2 of them wrong"
    assert headline(figures["mistakes_val"]) == "All 4 mistakes on 11 validation images, the most confident first"
    assert [int(row[0]) for row in read(tmp_path / "mistakes_val.csv")[1:]] == [10, 7, 2, 1]


def test_the_sanity_check_is_not_shown(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]
) -> None:
    trainer = make_trainer(PredictionGrid(), num_sanity_val_steps=1, check_val_every_n_epoch=2)
    with pytest.warns(UserWarning, match="PredictionGrid is disabled: fit ended without a validation"):
        trainer.fit(make_module(), data)
    assert not figures


def test_pictures_during_training_are_an_option(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    board = TensorBoardLogger(tmp_path, name="", version="")
    trainer = make_trainer(PredictionGrid(every_n_epochs=2), max_epochs=3, logger=board)
    trainer.fit(make_module(), data)
    trainer.validate(make_module(), data, verbose=False)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    for name in ("predictions/val", "mistakes/val"):
        assert [image.step for image in events.Images(name)] == [5, 8, 8]


def test_a_set_without_mistakes_is_stated(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure], tmp_path: Path
) -> None:
    data.labels = data.predictions
    make_trainer(PredictionGrid()).validate(make_module(), data, verbose=False)
    assert headline(figures["mistakes_val"]) == "No mistakes: all 11 validation images are classified correctly."
    assert not figures["mistakes_val"].axes[0].images
    assert headline(figures["predictions_val"]) == "Predictions for 4 validation images, 0 of them wrong"
    assert read(tmp_path / "mistakes_val.csv") == [HEADER]


def test_an_external_module_without_a_data_module(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure], tmp_path: Path
) -> None:
    data.images = data.images.bfloat16()
    module = make_module().bfloat16()
    make_trainer(PredictionGrid()).test(module, data.loader(), verbose=False)
    assert read(tmp_path / "mistakes_test.csv")[1][:3] == ["1", "1", "0"]
    assert texts(figures["mistakes_test"])[1:3] == ["is 1", "image 1"]


def test_labels_that_do_not_count_are_left_out(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]
) -> None:
    data.labels[[1, 10]] = -100
    make_trainer(PredictionGrid()).test(make_module(), data, verbose=False)
    assert headline(figures["mistakes_test"]) == "All 2 mistakes on 9 test images, the most confident first"
    assert len(figures["predictions_test"].axes[0].images) == 3
    assert headline(figures["predictions_test"]) == "Predictions for 3 test images, 1 of them wrong"


def test_of_several_loaders_the_first_is_shown(
    data: Any, make_module: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]
) -> None:
    module = make_module()
    module.test_step = lambda batch, batch_idx, dataloader_idx: module.validation_step(batch, batch_idx)
    make_trainer(PredictionGrid()).test(module, [data.loader(), data.loader()], verbose=False)
    assert "mistakes on 11 test images" in headline(figures["mistakes_test"])


def test_memory_is_bounded(data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Only the images of the sheets are kept, for any number of batches."""
    batches: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    class Loader:
        def __len__(self) -> int:
            return 30

        def __iter__(self) -> Any:
            for _ in range(30):
                images = torch.rand(8, 3, 2, 2)
                batches.append(weakref.ref(images))
                yield images, torch.randint(3, (8,))

    class Grid(PredictionGrid):
        def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_test_batch_end(*args, **kwargs)
            alive.append(sum(batch() is not None for batch in batches))
            for kept in (self._batch, self._worst):
                assert kept is not None
                assert kept.images.untyped_storage().nbytes() <= 6 * 3 * 2 * 2 * 4

    make_trainer(Grid(rows=2, columns=3)).test(make_module(), Loader(), verbose=False)
    assert len(alive) == 30
    assert max(alive) <= 3  # the one that is read ahead, and the one at work
    assert len(read(tmp_path / "mistakes_test.csv")) == 1 + 6


REASONS = [
    (lambda logits: None, "validation_step must return the logits"),
    (lambda logits: {"loss": 1}, "validation_step must return the logits"),
    (lambda logits: logits[:, :1], "of 2 or more classes"),
]


@pytest.mark.parametrize(("returns", "reason"), REASONS)
def test_a_module_that_does_not_classify_causes_one_warning(
    data: Any,
    make_module: Any,
    make_trainer: MakeTrainer,
    tmp_path: Path,
    own_warnings: Any,
    returns: Any,
    reason: str,
) -> None:
    trainer = make_trainer(PredictionGrid(), max_epochs=2)
    with pytest.warns(UserWarning, match=reason) as caught:
        trainer.fit(make_module(returns), data)
    (message,) = own_warnings(caught, "PredictionGrid")
    assert message.startswith("PredictionGrid is disabled: ")
    assert "\n" not in message
    assert "{{" not in message
    assert not list(tmp_path.rglob("*.*"))


def test_batches_without_labelled_images_cause_one_warning(
    data: Any, make_module: Any, make_trainer: MakeTrainer, own_warnings: Any
) -> None:
    data.labels = torch.nn.functional.one_hot(data.labels, 3).float()
    with pytest.warns(UserWarning, match=r"with integer labels \(N,\)") as caught:
        make_trainer(PredictionGrid()).fit(make_module(), data)
    assert len(own_warnings(caught, "PredictionGrid")) == 1
    data.images = data.images[:, :, 0]
    module = make_module()
    module.test_step = lambda batch, batch_idx: None
    with pytest.warns(UserWarning, match=r"images \(N, C, H, W\), C 1 or 3"):
        make_trainer(PredictionGrid()).test(module, data, verbose=False)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_find_the_mistakes_of_both(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    certain(data).labels[0] = 1
    loader = DataLoader(TensorDataset(data.images, data.labels), batch_size=4)  # 11 samples: the first is repeated
    trainer = make_trainer(PredictionGrid(), strategy="ddp_fork", devices=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and on evaluating with several devices
        trainer.test(make_module(), loader, verbose=False)
    assert [int(row[0]) for row in read(tmp_path / "mistakes_test.csv")[1:]] == [10, 7, 2, 1, 0]


@pytest.mark.usefixtures("other_rank")
def test_another_rank_writes_nothing(data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(PredictionGrid(every_n_epochs=1)).fit(make_module(), data)
    assert not list(tmp_path.rglob("*.*"))


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"rows \(=0\) must be at least 1"):
        PredictionGrid(rows=0)
    with pytest.raises(ValueError, match=r"every_n_epochs \(=0\) must be at least 1"):
        PredictionGrid(every_n_epochs=0)
