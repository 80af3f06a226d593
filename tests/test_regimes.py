"""The command draws the schedules of a training, its page agrees with the code, and neither needs torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from torch.optim import SGD, lr_scheduler

from lightning_cifar import plots
from lightning_cifar.commands.regimes import PAPERS, main, trace
from lightning_cifar.errors import UsageError
from lightning_cifar.schedules import REGIMES, check_regime, lr_factor

PAGE = Path(__file__).parents[1] / "docs" / "regimes.md"
PNG = b"\x89PNG"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that the command makes."""
    figures: list[Figure] = []
    draw = plots.draw_regimes

    def keep(*args: Any, **kwargs: Any) -> Figure:
        figures.append(draw(*args, **kwargs))
        return figures[-1]

    monkeypatch.setattr(plots, "draw_regimes", keep, raising=False)
    return figures


def section(name: str) -> str:
    """What the page says of one regime."""
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert found, f"the page has no section {name}"
    return found[1]


def block(name: str, language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", section(name), flags=re.DOTALL)
    return str(text)


def test_presets_are_valid_and_distinct() -> None:
    for settings in REGIMES.values():
        check_regime(**settings)
    curves = {tuple(trace(settings)[1]) for settings in REGIMES.values()}
    assert len(curves) == len(REGIMES)
    assert set(PAPERS) < set(REGIMES)


@pytest.mark.parametrize("name", REGIMES)
def test_a_trace_is_the_factor_times_the_peak(name: str) -> None:
    progress, rates = trace(REGIMES[name], peak=0.4)
    assert (progress[0], progress[-1]) == (0, 1)
    assert rates == pytest.approx([0.4 * lr_factor(float(point), **REGIMES[name]) for point in progress], abs=1e-12)
    assert rates.max() == pytest.approx(0.4, abs=1e-12)


def test_all_presets_in_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn: list[Figure]) -> None:
    main(["--out", str(tmp_path / "new")])
    path = tmp_path / "new" / "regimes.png"
    assert path.read_bytes().startswith(PNG)
    assert [axes.get_title() for axes in drawn[0].axes] == list(REGIMES)
    header, *rows, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["regime", "model.init_args", "paper"]
    for row, (name, settings) in zip(rows, REGIMES.items(), strict=True):
        first, in_yaml, paper = re.split(r"\s{2,}", row)
        assert (first, yaml.safe_load(in_yaml), paper) == (name, settings, PAPERS.get(name, "-"))
    assert last == f"wrote {path}"


def test_without_a_folder_the_picture_is_written_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main([])
    assert [path.name for path in tmp_path.iterdir()] == ["regimes.png"]


def test_a_replaced_picture_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "regime_step.png").write_text("old")
    main(["--out", str(tmp_path), "--name", "step"])
    assert capsys.readouterr().out.splitlines()[-1] == f"replaced {tmp_path / 'regime_step.png'}"
    assert (tmp_path / "regime_step.png").read_bytes().startswith(PNG)


def test_named_presets(tmp_path: Path, drawn: list[Figure], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--out", str(tmp_path), "--name", "cosine", "step", "--lr", "0.2"])
    assert [axes.get_title() for axes in drawn[0].axes] == ["cosine", "step"]
    assert drawn[0].axes[0].get_ylabel() == "learning rate"
    assert np.max(drawn[0].axes[1].lines[0].get_ydata()) == 0.2
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert (tmp_path / "regimes.png").is_file()


def test_one_regime_by_its_settings(tmp_path: Path, drawn: list[Figure], capsys: pytest.CaptureFixture[str]) -> None:
    args = "--schedule cosine --warmup 0.2 --cycles 2 --cycle_mult 1.5 --final_lr 1e-5 --lr 0.1 --log"
    main(["--out", str(tmp_path), *args.split()])
    settings: Any = {"schedule": "cosine", "warmup": 0.2, "cycles": 2, "cycle_mult": 1.5, "final_lr": 1e-5}
    (axes,) = drawn[0].axes
    x, y = np.asarray(axes.lines[0].get_xydata()).T
    assert y == pytest.approx([0.1 * lr_factor(point / 100, **settings) for point in x], abs=1e-12)
    assert (axes.get_ylabel(), axes.get_yscale()) == ("learning rate", "log")
    line, last = capsys.readouterr().out.splitlines()
    assert yaml.safe_load(line) == {"init_args": {"lr": 0.1, **settings}}
    assert last == f"wrote {tmp_path / 'regime.png'}"


def test_settings_without_a_schedule_are_those_of_a_constant(tmp_path: Path, drawn: list[Figure]) -> None:
    main(["--out", str(tmp_path), "--warmup", "0.5"])
    assert drawn[0].axes[0].get_title() == "schedule: constant, warmup: 0.5"
    assert drawn[0].axes[0].get_ylabel() == "learning rate / peak"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--name cosin", r"^there is no regime 'cosin'\. Did you mean cosine\? There are constant, step,"),
        ("--name one_cycle", r"Did you mean one-cycle\?"),
        ("--schedule cosin", r"^schedule \(='cosin'\) must be one of .*\. Did you mean cosine\?$"),
        ("--schedule cosine --warmup 2", r"^warmup \(=2\.0\) must be a fraction of the cycle, between 0 and 1\.$"),
        ("--schedule step --final_lr 0", r"^final_lr \(=0\) must be above 0 for schedule='step'"),
        ("--cycles 0", r"^cycles \(=0\) must be at least 1"),
        ("--cycles 101", r"^cycles \(=101\) must be at most 100 to be visible in a picture\.$"),
        ("--cycles 99 --cycle_mult 1e9", r"^cycle_mult \(=1000000000\.0\) \*\* cycles \(=99\)"),
        ("--cycles 99 --cycle_mult 1e-9", r"^cycle_mult \(=1e-09\) \*\* cycles \(=99\)"),
        ("--lr 0", r"^lr \(=0\.0\) must be a positive number\.$"),
        ("--lr inf", r"^lr \(=inf\) must be a positive number\.$"),
        ("--name cosine --warmup 0.1", r"^--name and --warmup are mutually exclusive"),
        ("--warmup much", r"^argument --warmup: invalid float value: 'much'$"),
        ("--cycle_mul 2", r"^there is no option --cycle_mul\. Did you mean --cycle_mult\?"),
        ("--out {file}", r"must end in \.png, or be a folder\.$"),
    ],
)
def test_errors_are_one_line(args: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match=message) as caught:
        main(args.format(file=file).split())
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", REGIMES)
def test_the_page_shows_every_preset(name: str) -> None:
    assert yaml.safe_load(block(name, "yaml")) == REGIMES[name]
    assert block(name, "sh") == f"lightning-cifar regimes --out docs/pictures --name {name}\n"
    picture = PAGE.parent / "pictures" / f"regime_{name}.png"
    assert f"(pictures/{picture.name})" in section(name)
    assert picture.stat().st_size < 40_000
    if name in PAPERS:
        paper = PAPERS[name].partition("arXiv:")[2]
        assert f"https://arxiv.org/abs/{paper}" in section(name)


@pytest.mark.parametrize("name", REGIMES)
def test_the_scheduler_of_torch_on_the_page_is_equal(name: str) -> None:
    lr, n = 0.8, 840
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    known = {**vars(lr_scheduler), "optimizer": optimizer, "lr": lr, "n": n}
    scheduler = eval(block(name, "python"), known)
    theirs = []
    for _ in range(n):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [lr * lr_factor(step / n, **REGIMES[name]) for step in range(n)] == pytest.approx(theirs, abs=1e-9)


def test_importing_and_running_load_neither_torch_nor_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys; from lightning_cifar.commands.regimes import main; early = 'matplotlib' in sys.modules;"
        f"main(['--out', {str(tmp_path)!r}]);"
        "print(early, sorted({'torch', 'lightning', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False []"
