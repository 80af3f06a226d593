"""Every sample of an evaluation is counted once."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_cifar.callbacks import ClassAccuracy

MakeTrainer = Callable[..., Trainer]

# Of the eleven samples, counted by hand.
CONFUSION = [
    ["true \\ predicted", "cat", "dog", "automobile"],
    ["cat", "3", "0", "1"],
    ["dog", "2", "1", "0"],
    ["automobile", "0", "1", "3"],
]


def read(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("batch_size", "wrap"), [(1, True), (4, False), (11, True)])
def test_the_whole_set_is_counted(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path, batch_size: int, wrap: bool
) -> None:
    data.batch_size = batch_size
    make_trainer(ClassAccuracy()).test(
        make_module(lambda logits: {"logits": logits} if wrap else logits), data, verbose=False
    )
    assert read(tmp_path / "confusion_test.csv") == CONFUSION
    table = read(tmp_path / "class_accuracy_test.csv")
    assert table[0] == ["class", "count", "correct", "accuracy", "precision", "f1", "most_confused_with", "confused"]
    assert [row[:3] + row[-2:] for row in table[1:]] == [
        ["cat", "4", "3", "automobile", "1"],
        ["dog", "3", "1", "cat", "2"],
        ["automobile", "4", "3", "dog", "1"],
    ]
    assert [float(value) for value in table[2][3:6]] == pytest.approx([1 / 3, 1 / 2, 2 / 5])
    assert files_in(tmp_path) == {"confusion_test.csv", "class_accuracy_test.csv", "pictures/confusion_test.png"}


def test_fit_logs_each_validation_and_reports_at_the_end(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    board, table = TensorBoardLogger(tmp_path, name="", version=""), CSVLogger(tmp_path / "csv")
    # The sanity steps see four samples more, which must not count.
    trainer = make_trainer(ClassAccuracy(), max_epochs=2, logger=[board, table], num_sanity_val_steps=1)
    trainer.fit(make_module(), data)
    expected = {"val/accuracy/cat": 3 / 4, "val/accuracy/dog": 1 / 3, "val/accuracy/automobile": 3 / 4}
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert logged == pytest.approx(expected)
    assert not trainer.progress_bar_metrics
    assert read(tmp_path / "confusion_val.csv") == CONFUSION
    assert (tmp_path / "pictures/confusion_val.png").is_file()

    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Scalars("val/accuracy/cat")] == [2, 5]
    assert [image.step for image in events.Images("confusion/val")] == [5]
    metrics = read(tmp_path / "csv/lightning_logs/version_0/metrics.csv")
    column = metrics[0].index("val/accuracy/dog")
    assert [float(row[column]) for row in metrics[1:] if row[column]] == pytest.approx([1 / 3] * 2)


def test_pictures_during_training_are_an_option(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    board = TensorBoardLogger(tmp_path, name="", version="")
    make_trainer(ClassAccuracy(every_n_epochs=2), max_epochs=4, logger=board).fit(make_module(), data)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("confusion/val")] == [5, 11, 11]
    with pytest.raises(ValueError, match=r"every_n_epochs \(=0\) must be at least 1"):
        ClassAccuracy(every_n_epochs=0)


def test_validate_and_test_do_not_mix(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(ClassAccuracy(), logger=CSVLogger(tmp_path, name="", version=""))
    trainer.validate(make_module(), data, verbose=False)
    trainer.test(make_module(), data, verbose=False)
    assert read(tmp_path / "confusion_val.csv") == read(tmp_path / "confusion_test.csv") == CONFUSION
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "validation: 63.64 % of 11 correct" in printed
    assert "test: 63.64 % of 11 correct" in printed
    (dog, _) = (line for line in printed.splitlines() if line.startswith("| dog"))
    assert [cell.strip() for cell in dog.strip("|").split("|")] == ["dog", "3", "33.33", "50.00", "cat (66.7 %)"]


def test_without_a_data_module_classes_are_numbers(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    make_trainer(ClassAccuracy()).test(make_module(), data.loader(), verbose=False)
    assert [row[0] for row in read(tmp_path / "class_accuracy_test.csv")] == ["class", "0", "1", "2"]


def test_a_class_without_samples_has_no_number(
    data: Any, make_module: Any, make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    data.images, data.labels = data.images[:2], data.labels[:2]  # a cat, and a dog taken for one
    trainer = make_trainer(ClassAccuracy())
    trainer.fit(make_module(), data)
    assert set(trainer.callback_metrics) == {"val/accuracy/cat", "val/accuracy/dog"}
    printed = capsys.readouterr().out.splitlines()
    (automobile,) = (line for line in printed if line.startswith("| automobile"))
    assert [cell.strip() for cell in automobile.strip("|").split("|")] == ["automobile", "0", "-", "-", ""]


def test_names_are_not_markup(
    data: Any, make_module: Any, make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    data.class_names = ("[red]", "a:smile:", "c")
    make_trainer(ClassAccuracy()).test(make_module(), data, verbose=False)
    printed = capsys.readouterr().out
    assert "[red] (66.7 %)" in printed
    assert "a:smile:" in printed


@pytest.mark.parametrize("returns", [lambda logits: None, lambda logits: {"loss": 1}, lambda logits: logits.sum()])
def test_a_module_without_logits_causes_one_warning(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path, own_warnings: Any, returns: Any
) -> None:
    trainer = make_trainer(ClassAccuracy(), max_epochs=2)
    with pytest.warns(UserWarning, match="validation_step must return the logits") as caught:
        trainer.fit(make_module(returns), data)
    (message,) = own_warnings(caught, "ClassAccuracy")
    assert "\n" not in message
    assert files_in(tmp_path) == set()


@pytest.mark.usefixtures("other_rank")
def test_another_rank_writes_and_prints_nothing(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(ClassAccuracy(every_n_epochs=1)).fit(make_module(), data)
    assert files_in(tmp_path) == set()
    assert "correct" not in capsys.readouterr().out


@pytest.mark.usefixtures("one_thread")
def test_two_processes_count_each_sample_once(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    dataset = torch.utils.data.TensorDataset(data.images, data.labels)  # 11 samples: one is repeated
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    trainer = make_trainer(ClassAccuracy(), strategy="ddp_fork", devices=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and on evaluating with several devices
        trainer.test(make_module(), loader, verbose=False)
    assert [row[1:] for row in read(tmp_path / "confusion_test.csv")[1:]] == [row[1:] for row in CONFUSION[1:]]
