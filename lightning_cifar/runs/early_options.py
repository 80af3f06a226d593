"""Reject misspelt options before torch is imported, from the source text of the classes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lightning_cifar.errors import UsageError, explain_unknown
from lightning_cifar.runs.arguments import Arguments

_PACKAGE = Path(__file__).parents[1]
_OF_PARSER = ("help", "class_path", "init_args")
# Options of a run that belong to no class. A test compares them with the parser.
_OF_RUN = (
    *("help", "config", "print_config", "seed_everything", "run_dir", "test_after_fit", "keep_every_n_epochs"),
    *("compile", "resume", "trainer", "model", "data", "ckpt_path", "weights_only", "verbose", "return_predictions"),
)


def check_options(arguments: Arguments) -> None:
    """Reject options that no class accepts, where the classes are known and belong to this package or to Lightning.

    Raises:
        UsageError: If an option does not exist; the message contains a similar one.
    """
    accepted = {"trainer": trainer_settings()}
    for section in ("model", "data"):
        if (name := arguments.class_of(section)) and (settings := settings_of(section, name)):
            accepted[section] = settings
    common = {"model": settings_of("model", "LeNet"), "data": settings_of("data", "CIFAR10DataModule")}
    similar = {**common, **accepted}
    known = [*_OF_RUN, *(f"{section}.{name}" for section, names in similar.items() for name in sorted(names))]
    for option, _ in arguments.pairs:
        section, _, rest = option.removeprefix("--").removesuffix("+").partition(".")
        name = rest.removeprefix("init_args.").split(".")[0].removesuffix("+")
        if not option.startswith("--") or name in _OF_PARSER:
            continue
        if section not in _OF_RUN or (rest and name not in accepted.get(section, {name})):
            raise UsageError(explain_unknown(option, known))


def trainer_settings() -> frozenset[str]:
    """Return the names of the arguments of Lightning's Trainer."""
    spec = find_spec("lightning")
    assert spec is not None
    assert spec.origin is not None
    return frozenset(_arguments(Path(spec.origin).parent / "pytorch" / "trainer" / "trainer.py", "Trainer"))


def settings_of(section: str, name: str) -> frozenset[str]:
    """Return the names of the arguments of a model or data module of this package and of its base classes.

    Example:
        >>> "lr" in settings_of("model", "LeNet")
        True
        >>> settings_of("model", "Small")  # not of this package
        frozenset()
    """
    return frozenset(_arguments(_PACKAGE / {"model": "models", "data": "data"}[section] / "__init__.py", name))


def _arguments(file: Path, name: str) -> Iterator[str]:
    """Yield the arguments of a class that a file defines or imports from this package."""
    for node in _nodes(file):
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            source = _PACKAGE.parent / (node.module or "").replace(".", "/")
            for path in (source.with_suffix(".py"), source / "__init__.py"):
                if path.is_relative_to(_PACKAGE) and path.is_file():
                    yield from _arguments(path, name)
        elif isinstance(node, ast.ClassDef) and node.name == name:
            own = [item.args for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
            yield from (arg.arg for args in own for arg in (*args.args[1:], *args.kwonlyargs))
            if not own or own[0].kwarg:
                for base in (base.id for base in node.bases if isinstance(base, ast.Name)):
                    yield from _arguments(file, base)


@cache
def _nodes(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body
