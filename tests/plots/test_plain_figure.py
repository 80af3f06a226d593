"""Texts of figures are literal, and tick labels are formulas of matplotlib."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import numpy as np
import pytest

import lightning_cifar.plots
from lightning_cifar.plots import draw_confusion
from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.rendering import to_pixels


@pytest.mark.parametrize("name", [r"$\frac$", "$x$", "a $ b $ c", r"\$x$", "$$", "$", r"a_b^{c}"])
def test_every_text_is_literal(name: str) -> None:
    figure = PlainFigure(figsize=(5, 4), layout="constrained")
    figure.suptitle(name)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label=name)
    axes.set_xticks([0, 1], [name, name])
    axes.set_title(name)
    axes.set_ylabel(name)
    axes.annotate(name, (0.5, 0.5))
    axes.legend(title=name)
    figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")
    texts = [figure._suptitle, axes.title, axes.yaxis.label, *axes.get_xticklabels(), *axes.texts]
    texts += [*axes.get_legend().get_texts(), axes.get_legend().get_title()]
    assert [text.get_text() for text in texts] == [name] * len(texts)
    assert not any(text.get_parse_math() for text in texts)
    plain = PlainFigure(figsize=(5, 4))
    plain.text(0.1, 0.5, name.replace("$", "S"))
    named = PlainFigure(figsize=(5, 4))
    named.text(0.1, 0.5, name)
    widths = [each.texts[0].get_window_extent().width for each in (plain, named) if to_pixels(each).any()]
    assert widths[1] == pytest.approx(widths[0], rel=0.2), "drawn letter by letter"


def test_powers_of_ten_stay_formulas() -> None:
    figure = PlainFigure()
    axes = figure.subplots()
    axes.semilogx([1e-5, 1], [0, 1])
    to_pixels(figure)
    labels = [label for label in axes.get_xticklabels() if label.get_text()]
    assert labels
    assert all("mathdefault" in label.get_text() and label.get_parse_math() for label in labels)


def test_names_of_classes_in_a_confusion_matrix() -> None:
    names = [r"$\frac$", "$x$", "a_b"]
    figure = draw_confusion(np.eye(3, dtype=int), names, title=r"$\frac$")
    to_pixels(figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == names


@pytest.mark.parametrize(
    "path", sorted(Path(lightning_cifar.plots.__file__).parent.rglob("*.py")), ids=lambda path: path.stem
)
def test_every_figure_is_plain(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "Figure"]
