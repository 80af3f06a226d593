"""The table contains every image, and the sheets show them as the network receives them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_cifar import plots
from lightning_cifar.callbacks import PredictionTable, prediction_table
from lightning_cifar.callbacks.prediction_table import _Row, format_predictions

MakeTrainer = Callable[..., Trainer]


class Guesser(LightningModule):
    """The probability of class k is the share of channel k."""

    def __init__(self, returns: Callable[[Tensor], object] = lambda p: p) -> None:
        super().__init__()
        self.returns = returns

    def predict_step(self, batch: Any, batch_idx: int) -> object:
        levels = (batch[0] if isinstance(batch, tuple) else batch).mean(dim=(2, 3)) + 0.05
        return self.returns(levels / levels.sum(1, keepdim=True))


@pytest.fixture
def data(data: Any) -> Any:
    data.predict_dataloader = data.loader
    return data


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, np.ndarray, list[plots.PredictedPhotograph], str]]:
    drawn: list[Any] = []

    def draw(images: Any, photographs: Any, *, columns: int, title: str) -> None:
        drawn.append([images, photographs, title])

    def save(trainer: Trainer, name: str, figure: None, *, tag: str, step: int) -> Path:
        drawn[-1].insert(0, name)
        return Path(f"{name}.png")

    monkeypatch.setattr(plots, "draw_photographs", draw, raising=False)
    monkeypatch.setattr(prediction_table, "save_figure", save)
    return drawn


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_image_has_a_row(data: Any, make_trainer: MakeTrainer, tmp_path: Path, sheets: Any) -> None:
    make_trainer(PredictionTable(top=2)).predict(Guesser(), data)
    rows = table(tmp_path)
    assert list(rows[0]) == ["image", "class", "probability", "class_2", "probability_2", "true"]
    names = data.class_names
    assert [row["image"] for row in rows] == [str(i) for i in range(11)]
    assert [row["class"] for row in rows] == [names[k] for k in data.predictions]
    assert [row["true"] for row in rows] == [names[k] for k in data.labels]
    assert {row["probability"] for row in rows} == {f"{0.95 / 1.05:.4f}"}
    (name, images, photographs, title) = sheets[0]
    assert (name, len(sheets)) == ("predictions", 1)
    plain = data.images.movedim(1, -1).numpy() * np.array(data.std) + np.array(data.mean)
    np.testing.assert_allclose(images, plain, atol=1e-6)
    assert [each.predicted for each in photographs] == [row["class"] for row in rows]
    assert "1 to 11" in title


def test_files_are_named_and_their_folders_are_the_truth(
    data: Any, make_trainer: MakeTrainer, tmp_path: Path, sheets: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data.file_names = [f"{['CAT', 'holiday', 'dog'][i % 3]}/{i}.jpg" for i in range(20)]
    data.labels = torch.arange(19, 8, -1)  # numbers of the files, in whatever order they come
    make_trainer(PredictionTable()).predict(Guesser(), data)
    rows = table(tmp_path)
    assert [row["file"] for row in rows] == data.file_names[9:], "in the order of the files"
    assert [row["true"] for row in rows[:3]] == ["cat", "", "dog"]
    by_number = dict(zip(data.labels.tolist(), data.predictions.tolist(), strict=True))
    assert [row["class"] for row in rows] == [data.class_names[by_number[i]] for i in range(9, 20)]
    photographs = sheets[0][2]
    assert [each.caption for each in photographs] == [data.file_names[i] for i in range(19, 8, -1)]
    said = capsys.readouterr().out
    assert "holiday/10.jpg" in said
    right = sum(row["true"] == row["class"] for row in rows)
    known = sum(bool(row["true"]) for row in rows)
    assert f"top-1 accuracy {right} of {known}, top-" in said
    assert f"predictions of 11 images: {tmp_path}/predictions.csv, predictions.png" in said


def test_sheets_follow_each_other(data: Any, make_trainer: MakeTrainer, sheets: Any, tmp_path: Path) -> None:
    data.images = data.images + torch.arange(11)[:, None, None, None] / 1000
    make_trainer(PredictionTable(rows=1, columns=3, sheets=3)).predict(Guesser(), data)
    assert [name for name, *_ in sheets] == ["predictions", "predictions_2", "predictions_3"]
    assert [len(images) for _, images, *_ in sheets] == [3, 3, 3]
    assert [each.caption for _, _, photographs, _ in sheets for each in photographs] == [str(i) for i in range(9)]
    shown = np.concatenate([images for _, images, *_ in sheets])
    plain = data.images[:9].movedim(1, -1).numpy() * np.array(data.std) + np.array(data.mean)
    np.testing.assert_allclose(shown, plain, atol=1e-6)
    assert len(table(tmp_path)) == 11
    del sheets[:]
    make_trainer(PredictionTable(rows=1, columns=4)).predict(Guesser(), data)
    assert [len(images) for _, images, *_ in sheets] == [4, 4, 3]
    del sheets[:]
    make_trainer(PredictionTable(sheets=0)).predict(Guesser(), data)
    assert not sheets


def test_a_picture_and_a_printed_table_of_limited_length(
    data: Any, make_trainer: MakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(PredictionTable(lines=4))
    trainer.predict(Guesser(), data)
    assert (tmp_path / "pictures/predictions.png").stat().st_size > 1000
    said = capsys.readouterr().out
    assert "... and 7 more in the table" in said
    assert "cat 90.5 %" in said
    assert ">99.9 %" in format_predictions([_Row(0, 0, "a.png", ["cat"], [0.99997], None)])
    assert "100.0 %" in format_predictions([_Row(0, 0, "a.png", ["cat"], [1.0], None)])
    trainer.predict(Guesser(), data)  # again, and not twice
    assert len(table(tmp_path)) == 11


def test_names_of_the_module_go_before_those_of_the_data(data: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    module = Guesser()
    module.class_names = ["a", "b", "c"]
    make_trainer(PredictionTable(sheets=0)).predict(module, data)
    assert {row["class"] for row in table(tmp_path)} == {"a", "b", "c"}
    module.class_names = ["a", "b"]
    data.class_names = None
    make_trainer(PredictionTable(sheets=0)).predict(module, data)
    assert {row["class"] for row in table(tmp_path)} == {"class 0", "class 1", "class 2"}


def test_images_without_labels_have_no_true_class(data: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Images:
        def __iter__(self) -> Iterator[Tensor]:
            return iter(data.images.split(4))

        def __len__(self) -> int:
            return 3

    data.predict_dataloader = Images
    make_trainer(PredictionTable()).predict(Guesser(), data)
    assert "true" not in table(tmp_path)[0]


def test_outputs_that_are_not_probabilities_cause_one_warning(
    data: Any, make_trainer: MakeTrainer, tmp_path: Path, own_warnings: Any
) -> None:
    with pytest.warns(UserWarning, match="must return probabilities") as caught:
        make_trainer(PredictionTable()).predict(Guesser(lambda p: 3 * p), data)
    assert len(own_warnings(caught, "PredictionTable")) == 1
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_in_a_trial_run(data: Any, make_trainer: MakeTrainer, tmp_path: Path, capsys: Any) -> None:
    make_trainer(PredictionTable(), fast_dev_run=True).predict(Guesser(), data)
    assert not list(tmp_path.iterdir())
    assert "predictions" not in capsys.readouterr().out


@pytest.mark.usefixtures("other_rank")
def test_another_rank_writes_nothing(data: Any, make_trainer: MakeTrainer, tmp_path: Path, sheets: Any) -> None:
    make_trainer(PredictionTable()).predict(Guesser(), data)
    assert not sheets
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["top", "rows", "columns", "sheets", "lines"])
def test_numbers_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} \(=-1\) must be at least"):
        PredictionTable(**{name: -1})
