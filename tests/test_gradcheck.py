"""``lightning-cifar gradcheck`` distinguishes correct gradients from wrong ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_cifar.cli import main
from lightning_cifar.ext import layers
from lightning_cifar.ext.functions import FUNCTIONS


def test_all_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "--num", "1000"]) == 0
    text = capsys.readouterr().out
    assert "32 of 32 passed" in text
    assert "FAILED" not in text


def test_one_function(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "--function", "f3", "--num", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["f3 (y=1)"] * 3 + ["f3 (y=2)"] * 3


def test_a_wrong_function_fails_with_its_inputs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = FUNCTIONS["f2"]["f2"]
    wrong = right._replace(by_hand=lambda x: (right.by_hand(x)[0], (right.by_hand(x)[1][0] + 1e-6,)))
    monkeypatch.setitem(FUNCTIONS["f2"], "f2", wrong)
    assert main(["gradcheck", "--function", "f2", "--num", "10"]) == 1
    text = capsys.readouterr().out
    assert "f2: gradient by hand" in text
    assert "FAILED" in text
    assert "at x = 0." in text
    assert "expected" in text


@pytest.mark.parametrize("name", ["relu_backward", "max_pool_backward", "average_pool_backward"])
def test_a_wrong_layer_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(layers, name)
    monkeypatch.setattr(layers, name, lambda *args: right(*args) * 1.0001)
    assert main(["gradcheck", "--layers"]) == 1


def test_nan_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = layers.softmax_loss

    def wrong(x: Any, y: Any) -> Any:
        return np.nan, right(x, y)[1]

    monkeypatch.setattr(layers, "softmax_loss", wrong)
    assert main(["gradcheck", "--stability"]) == 1


def test_the_graph_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "f1.png"
    assert main(["gradcheck", "--function", "f1", "--num", "1", "--draw", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "--function", "f9"]) == 2
    assert "invalid choice: 'f9'" in capsys.readouterr().err
    assert main(["gradcheck", "--num", "0"]) == 2
    assert "--num: '0' must be a whole number, at least 1" in capsys.readouterr().err
    assert main(["gradcheck", "--draw", "x.png"]) == 2
    assert "needs --function" in capsys.readouterr().err
