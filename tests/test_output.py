"""One rule decides in all commands whether ``--out`` is a folder or a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_cifar.cli import main
from lightning_cifar.errors import UsageError
from lightning_cifar.files.output import choose_output


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("there", "there.html", "v1.2"):
        Path(folder).mkdir()
    Path("file.html").touch()
    Path("plain").touch()


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("there", "there/report.html"),
        ("there.html", "there.html/report.html"),
        ("new/inside", "new/inside/report.html"),
        ("v1.2", "v1.2/report.html"),
        ("v1.3", "v1.3/report.html"),
        (".", "report.html"),
        ("file.html", "file.html"),
        ("new/page.HTML", "new/page.HTML"),
    ],
)
def test_a_folder_or_a_file(out: str, expected: str) -> None:
    assert choose_output(Path(out), "report.html") == Path(expected)
    assert choose_output(Path("~") / out, "report.html").is_relative_to(Path("home").absolute())


def test_several_files_need_a_folder() -> None:
    assert choose_output(Path("there"), None) == Path("there")
    assert choose_output(Path("new"), None) == Path("new")
    for out in ("file.html", "new.html", "plain"):
        with pytest.raises(UsageError, match=rf"--out \(={out}\) must be a folder for several files: "):
            choose_output(Path(out), None)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("page.pdf", r"--out \(=page.pdf\) must end in .html or .htm, or be a folder"),
        ("plain", r"--out \(=plain\) must end in .html or .htm, or be a folder"),
        ("file.html/x/y.html", r"cannot be written: \S*/file.html is not a folder"),
    ],
)
def test_unwritable_outputs(out: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=said):
        choose_output(Path(out), "report.html", ".html", ".htm")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match=r"--draw \(=new.html\) cannot be written: permission denied"):
        choose_output(Path("new.html"), "report.html", option="--draw")


def test_commands_follow_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    for args, path in (
        (["regimes", "--name", "one-cycle", "--out", "made"], "made/regime_one-cycle.png"),
        (["regimes", "--name", "one-cycle", "--out", "a/mine.png"], "a/mine.png"),
        (["gradcheck", "--function", "f3", "--num", "10", "--draw", "there"], "there/f3.png"),
        (["gradcheck", "--function", "f3", "--num", "10", "--draw", "b/f.png"], "b/f.png"),
    ):
        assert not main(args)
        assert Path(path).is_file()
    capsys.readouterr()
    for args in (
        ["lr-find", "--model", "LeNet", "--data", "SyntheticDataModule", "--out", "x.html"],
        ["explain", "--ckpt_path", "x.ckpt", "--images", "file.html", "--out", "x.html"],
    ):
        assert main(args) == 2
        assert "--out (=x.html) must be a folder" in capsys.readouterr().err
    for args in (
        ["report", "there", "--out", "x.pdf"],
        ["bench", "conv", "--out", "x.pdf"],
        ["regimes", "--out", "x.pdf"],
        ["gradcheck", "--function", "f3", "--draw", "x.pdf"],
    ):
        assert main(args) == 2
        assert "(=x.pdf) must end in ." in capsys.readouterr().err
