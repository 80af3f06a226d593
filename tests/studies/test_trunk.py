"""A study with a trunk: the common epochs are trained once per seed, and the arms fork from them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_cifar.cli import main
from lightning_cifar.errors import UsageError
from lightning_cifar.files.reading import read_text
from lightning_cifar.studies.jobs import Job, prepare, take_ready
from lightning_cifar.studies.report import results
from lightning_cifar.studies.report.comparison import compare
from lightning_cifar.studies.report.family import draw_family
from lightning_cifar.studies.run import work
from lightning_cifar.studies.spec import Study, read_study

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

STUDY: dict[str, Any] = {
    "trunk": {"epochs": 2},
    "seeds": [3, 8],
    "base": {
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"class_path": "LeNet", "init_args": {"lr": 0.05, "schedule": "linear"}},
        "data": {"class_path": "SyntheticDataModule", "init_args": {"num_train": 64, "num_val": 32, "batch_size": 16}},
    },
    "arms": {"same": {"model.lr": 0.05}, "plain": {"data.augment": []}},
}


def read(folder: Path, **changed: Any) -> Study:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changed}, sort_keys=False))
    return read_study(path)


def run(jobs: list[Job]) -> list[str]:
    waiting, done = list(jobs), []
    while job := take_ready(waiting, []):
        assert work(job, lambda _: None) == "done", read_text(job.path / "done.json")
        done.append(f"{job.arm} {job.seed}")
    return done


def weights(folder: Path) -> dict[str, torch.Tensor]:
    held: dict[str, torch.Tensor] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return held


def test_an_arm_that_changes_nothing_has_the_bits_of_the_base(tmp_path: Path, one_thread: None) -> None:
    study = read(tmp_path)
    jobs = prepare(study, tmp_path / "study", threads=1)
    assert run(jobs) == [f"{arm} {seed}" for seed in (3, 8) for arm in ("trunk", "same", "plain")]
    config = tmp_path / "study/trunk/config.yaml"
    assert main(["fit", "--config", str(config), "--seed_everything", "3", "--run_dir", str(tmp_path / "whole")]) == 0
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, weights(tmp_path / "study/same/seed-3")[name]), name
    assert not list((tmp_path / "study/same/seed-3/checkpoints").glob("epoch-*"))
    every = [results.read_run(job) for job in jobs]
    trunks, arms = ([run for run in every if (run.arm == "trunk") is wanted] for wanted in (True, False))
    assert "saved 4 of 12 epochs of training (33%), about " in results.trunk_text(trunks, arms, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trunk": 2}, r"trunk \(=2\) must be the number of its epochs, such as"),
        ({"trunk": {"epochs": 3}}, "trunk has 3 epochs: the trunk .* must be shorter"),
        ({"arms": {"a": {"model.optimizer": "adam"}}}, "arm a has another model.optimizer than the trunk"),
        ({"arms": {"a": {"data.num_train": 32}}}, "arm a has another data.num_train than the trunk"),
        ({"arms": {"trunk": {"model.lr": 0.1}}}, "the arm trunk has the name of the common epochs"),
    ],
)
def test_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, **changed)


def test_arms_wait_for_the_trunk_of_their_seed(tmp_path: Path) -> None:
    jobs = prepare(read(tmp_path), tmp_path / "study", threads=1)
    waiting = list(jobs)
    first = take_ready(waiting, [])
    second = take_ready(waiting, [first] if first else [])
    assert first
    assert second
    assert (first.arm, second.arm) == ("trunk", "trunk")
    assert take_ready(waiting, [first, second]) is None
    ready = take_ready(waiting, [second])
    assert ready
    assert (ready.arm, ready.seed) == ("same", 3)


def lines(figure: Any) -> dict[str, tuple[list[float], list[float]]]:
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    return {name: (list(line.get_xdata()), list(line.get_ydata())) for name, line in drawn.items() if name[0] != "_"}


def test_the_report_draws_the_epochs_before_a_fork_once(tmp_path: Path, write_study: Callable[..., Path]) -> None:
    folder = write_study(tmp_path / "study", {"constant": 0.0, "dropped": 0.1, "linear": 0.05}, seeds=2)
    assert draw_family(compare([folder])) is None
    for run in folder.glob("*/seed-*"):
        (run / "fork.json").write_text(json.dumps({"run": "trunk", "run_id": "abc", "epoch": 2, "step": 40}))
    held = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**held, "trunk": {"epochs": 2}}))
    for seed in range(2):
        shutil.copytree(folder / f"constant/seed-{seed}", folder / f"trunk/seed-{seed}")
    saved = "saved 8 of 30 epochs of training (27%), about 12 s of 45 s"
    assert f"The first 2 epochs were trained once per seed, which {saved}" in compare([folder]).saved
    found = lines(draw_family(compare([folder])))
    assert found.pop("fork")[0] == [2.0] * 3
    assert {name: x for name, (x, _) in found.items()} == {
        "before the fork at epoch 2 (n = 2)": [1, 2],
        **{f"{arm} (n = 2)": [2, 3, 4, 5] for arm in ("constant", "dropped", "linear")},
    }
    assert report(folder / "report.html", folder) == "forked runs"
    assert saved in (folder / "report.html").read_text()


def test_the_report_draws_a_parent_as_the_trunk_of_its_forks(tmp_path: Path, write_run: Callable[..., None]) -> None:
    names, origins = ("parent", "fork", "fork of the fork"), (None, ("aa", 2), ("bb", 3))
    for name, run_id, origin in zip(names, ("aa", "bb", "cc"), origins, strict=True):
        folder = tmp_path / name
        write_run(folder, seed=0, config={"model": {"class_path": name}})
        text = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(f"# run {run_id}\n{text}")
        if origin:
            (folder / "fork.json").write_text(json.dumps({"run_id": origin[0], "epoch": origin[1]}))
    found = lines(draw_family(compare([tmp_path / name for name in names])))
    assert [x for x, _ in found.values()] == [[1, 2, 3, 4, 5], [2, 3, 4, 5], [3, 4, 5], [2, 3]]


def report(page: Path, *folders: Path) -> str:
    """Return the title of the first picture of a page."""
    assert main(["report", *map(str, folders), "--out", str(page)]) == 0
    found = re.search(r"<summary>(.*?)</summary>", page.read_text())
    return found[1] if found else ""
