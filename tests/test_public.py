"""Public names exist, are documented, and are cheap to import."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_cifar

CALLABLE = [name for name in lightning_cifar.__all__ if callable(getattr(lightning_cifar, name))]


def documented(text: str, section: str) -> list[str]:
    """Names of the entries of a section of a docstring."""
    found = re.search(rf"^ *{section}:\n((?:^ {{4}}.*\n|^\n)+)", text + "\n\n", re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+(?:, \w+)*):", found[1], re.MULTILINE) if found else []
    return [name for entry in entries for name in entry.split(", ")]


def test_every_name_exists_and_is_listed() -> None:
    assert set(lightning_cifar.__all__) <= set(dir(lightning_cifar))
    for part in ("models", "data", "callbacks"):
        known = {*getattr(lightning_cifar, part).__all__} - {"Trainable"}  # which is below Classifier and Regressor
        assert known <= set(lightning_cifar.__all__), part
    with pytest.raises(AttributeError, match="LeNett"):
        lightning_cifar.LeNett  # noqa: B018


@pytest.mark.parametrize("package", ["lightning_cifar", "lightning_cifar.plots"])
def test_every_name_of_a_stub_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    assert len(module.__all__) > 50
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_documentation_site_shows_every_page_and_public_name(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = Path(__file__).parents[1] / "docs"
    monkeypatch.syspath_prepend(docs)
    reference = importlib.import_module("reference")
    assert dict(reference.api_pages())  # it checks the names
    pages = {path.stem for path in docs.glob("*.md")} - {"index"}
    assert pages <= set(reference.NAVIGATION.split())


@pytest.mark.parametrize("name", CALLABLE)
def test_docstrings_describe_existing_arguments(name: str) -> None:
    value = getattr(lightning_cifar, name)
    text = inspect.getdoc(value)
    assert text, name
    assert len(text.splitlines()[0]) <= 120
    assert text.splitlines()[0].endswith((".", "?")), "one sentence first"
    taken = [
        parameter.name
        for parameter in inspect.signature(value).parameters.values()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    described = documented(text, "Args")
    if not hasattr(value, "_fields") and "Trainable`" not in text:  # the fields of a NamedTuple have texts of their own
        assert [each for each in taken if each not in described] == []
    assert [each for each in described if each not in taken] == []


WITH_EXAMPLES = [
    path
    for path in Path(lightning_cifar.__file__).parent.rglob("*.py")
    if re.search(r"^ *>>> ", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings(path: Path) -> None:
    parts = path.relative_to(Path(lightning_cifar.__file__).parents[1]).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_the_import_is_cheap() -> None:
    """It loads the standard library and small modules of the package, and no other package."""
    code = "import sys; old = {*sys.modules}; import lightning_cifar; print(*{*sys.modules} - old)"
    args = [sys.executable, "-c", code]
    loaded = subprocess.run(args, capture_output=True, check=True, text=True).stdout.split()
    assert {name.split(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "lightning_cifar"}
