"""``lightning-cifar bench conv``: table, picture and error messages, but not the timings."""

from pathlib import Path

import pytest

from lightning_cifar.cli import main
from lightning_cifar.commands.bench import REFERENCE, TORCH, TORCH_LAST, race, read_shapes
from lightning_cifar.ext.convolution import BACKENDS


def test_table_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["bench", "conv", "--shape", "2x3x8x8x4x3x3", "--rounds", "2", "--out", str(tmp_path)]
    assert main(args) == 0
    text = capsys.readouterr().out
    assert "2 x 3 x 8 x 8 to 4, 3 x 3, forward" in text
    assert "2 x 3 x 8 x 8 to 4, 3 x 3, backward" in text
    for name in (*BACKENDS, TORCH, TORCH_LAST):
        assert f"  {name} " in text
    assert (tmp_path / "conv_bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_rows(way: str) -> None:
    rows = {row.name: row for row in race((1, 2, 5, 6, 3, 2, 2), way, 1)}
    assert set(BACKENDS) <= set(rows)
    operations = 2 * 3 * 4 * 5 * 2 * 2 * 2 * (1 if way == "forward" else 2)
    for row in rows.values():
        assert row.error < 1e-5
        assert row.gflops * row.seconds * 1e9 == pytest.approx(operations)


def test_slow_implementations_are_skipped_for_large_shapes() -> None:
    names = {row.name for row in race((8, 16, 16, 16, 16, 3, 3), "forward", 1)}
    assert "loops" not in names
    assert "im2col" in names


def test_shapes() -> None:
    assert read_shapes("reference") == (REFERENCE,)
    assert len(read_shapes("cifar")) == 6
    assert read_shapes("1x2x3x4x5x3x2") == ((1, 2, 3, 4, 5, 3, 2),)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--shape", "1x2x3"], r"--shape (=1x2x3) must be reference, cifar, or seven numbers"),
        (["--shape", "1x2x3x4x0x3x3"], "must be reference, cifar, or seven numbers"),
        (["--shape", "1x2x3x4x5x4x2"], "the 4 x 2 kernel is larger than the 3 x 4 image"),
        (["--threads", "0"], "--threads: '0' must be a whole number, at least 1"),
        (["--round", "3"], "there is no option --round. Did you mean --rounds?"),
    ],
)
def test_mistakes(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "conv", *args]) == 2
    assert message in capsys.readouterr().err
