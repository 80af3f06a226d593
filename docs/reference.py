"""Pages of the documentation site that are generated from the package, its parsers, configurations and examples."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import lightning_cifar
from lightning_cifar.commands.completion import _read_actions
from lightning_cifar.commands.table import COMMANDS

ROOT = Path(__file__).parents[1]

NAVIGATION = """
```{toctree}
:hidden:
:caption: Start

installation
guide
recipes
_generated/examples
gallery
```

```{toctree}
:hidden:
:caption: Features

photographs
augmentation
regimes
lr_range
loss_surface
transfer
inside
microscope
batchnorm_dropout
forks
studies
tensorboard
hand_made
export
callbacks
```

```{toctree}
:hidden:
:caption: Reference

_generated/api
_generated/commands
_generated/configurations
results
gpu
reliability
```

```{toctree}
:hidden:
:caption: Development

architecture
contributing
_generated/changelog
```
"""

# Pages of the API reference: title, and the folders or modules of the package whose public names it lists.
API = {
    "models": ("Models", ("models",)),
    "data": ("Data modules", ("data",)),
    "callbacks": ("Callbacks", ("callbacks",)),
    "functions": ("Functions", ("analysis", "schedules", "notebook", "ext")),
    "checkpoints": ("Checkpoints, runs and studies", ("checkpoints", "commands", "runs", "studies")),
    "artifacts": ("artifacts: write pictures and tables", ()),
    "plots": ("plots: draw figures", ()),
}
# Documented beside the public names: base classes, results and errors.
ADDITIONAL = {
    "models": ["models.trainable.Trainable", "models.transfer.Transfer", "models.hand_classifiers.HandClassifier"],
    "data": ["data.image_datamodule.LabelledImages", "data.noisy_line.Points"],
    "callbacks": ["analysis.lr_range.Suggestion", "callbacks.non_finite_guard.NonFiniteError"],
    "functions": [
        "analysis.classification.ClassScore",
        "analysis.layers.LayerRow",
        "analysis.occlusion.maps.OcclusionMap",
        "analysis.statistics.Mean",
        "analysis.comparisons.Difference",
    ],
    "checkpoints": ["errors.UsageError", "files.reading.UnreadableFileError"],
}


def write_pages(folder: Path) -> None:
    """Write all generated pages into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "api").mkdir(parents=True)
    for name, text in api_pages():
        (folder / name).write_text(text)
    (folder / "commands.md").write_text(commands_page())
    (folder / "configurations.md").write_text(configurations_page())
    (folder / "examples.md").write_text(examples_page())
    (folder / "changelog.md").write_text((ROOT / "CHANGELOG.md").read_text())


def to_generated_pages(text: str) -> str:
    """Replace links to files outside docs/ by links to the pages that show them."""
    text = text.replace("](../CHANGELOG.md)", "](_generated/changelog.md)")
    return re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](_generated/examples.md#\1py)", text)


def public_names(stub: Path) -> Iterator[tuple[str, str]]:
    """The module and the name of each import of a stub."""
    yield from re.findall(r"^from (\S+) import (\w+) as \2$", stub.read_text(), re.MULTILINE)


def api_pages() -> Iterator[tuple[str, str]]:
    """The API reference, one page for each group of public names."""
    package = Path(lightning_cifar.__file__).parent
    names = list(public_names(package / "__init__.pyi"))
    pages = {}
    for page, (title, parts) in API.items():
        found = [f"lightning_cifar.{name}" for module, name in names if module.split(".")[1:2] in [[p] for p in parts]]
        pages[page] = rst_title(title) + entries(
            [*found, *(f"lightning_cifar.{name}" for name in ADDITIONAL.get(page, ()))]
        )
    functions = inspect.getmembers(importlib.import_module("lightning_cifar.artifacts"), inspect.isfunction)
    pages["artifacts"] += first_paragraph("lightning_cifar.artifacts") + entries(
        f"lightning_cifar.artifacts.{name}"
        for name, value in functions
        if value.__module__.startswith("lightning_cifar.artifacts.") and not name.startswith("_")
    )
    drawn = [f"lightning_cifar.plots.{name}" for _, name in public_names(package / "plots" / "__init__.pyi")]
    pages["plots"] += first_paragraph("lightning_cifar.plots") + entries(drawn)
    listed = [f"lightning_cifar.{name}" for module, name in names if module != "lightning_cifar"]
    missing = [name for name in listed if f":: {name}\n" not in "".join(pages.values())]
    assert not missing, f"not in the API reference: {missing}"
    yield from ((f"api/{page}.rst", text) for page, text in pages.items())
    intro = "All names on these pages can be imported from ``lightning_cifar`` and are loaded on first use.\n\n"
    submodules = [f"lightning_cifar.{name}" for module, name in names if module == "lightning_cifar"]
    described = {name: first_paragraph(name).strip() for name in submodules}
    rows = "".join(f"``{name}``\n    {text}\n\n" for name, text in described.items() if text)
    toctree = ".. toctree::\n   :maxdepth: 1\n\n" + "".join(f"   api/{page}\n" for page in pages)
    yield "api.rst", rst_title("API reference") + intro + toctree + "\n**Modules**\n\n" + rows


def rst_title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def entries(names: Iterable[str]) -> str:
    """The autodoc directives of classes and functions."""
    blocks = []
    for name in names:
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        if inspect.isclass(value):
            blocks.append(f".. autoclass:: {name}\n   :members:\n   :show-inheritance:\n")
        else:
            blocks.append(f".. autofunction:: {name}\n")
    return "\n".join(blocks)


def first_paragraph(module: str) -> str:
    text = inspect.getdoc(importlib.import_module(module)) or ""
    return " ".join(text.partition("\n\n")[0].split()) + "\n\n"


def commands_page() -> str:
    """The options of every command, read from its parser."""
    actions = _read_actions()
    shared = {option(action): action.help for action in actions["fit"]}
    parts = [
        "# Command reference\n\nGenerated from the parsers. `lightning-cifar COMMAND --help` prints the same options. "
        "Options of classes (`--model.lr`, `--data.batch_size`) are the arguments in the [API reference](api.rst); "
        "`--model.help LeNet` prints them.\n"
    ]
    for name, command in COMMANDS.items():
        own = [action for action in actions[name] if not is_class_option(action) and action.help != argparse.SUPPRESS]
        text = f"{command.summary[0].upper()}{command.summary[1:]}."
        if command.module:
            parser = importlib.import_module(f"lightning_cifar.commands.{command.module}")._parser()
            text = " ".join(filter(None, (parser.description, parser.epilog)))
        note = ""
        if name in ("validate", "test", "predict", "lr-find"):
            own = [action for action in own if shared.get(option(action)) != action.help]
            note = "\nThe other options are those of [`fit`](#fit).\n"
        example = f"\n```sh\nlightning-cifar {name} {command.example}\n```\n"
        parts.append(f"## {name}\n\n{markdown(text)}\n{example}{note}\n{option_list(own)}")
    return "\n".join(parts)


def option(action: argparse.Action) -> str:
    return ", ".join(action.option_strings) or (action.metavar or action.dest).upper()


def is_class_option(action: argparse.Action) -> bool:
    return action.dest.startswith(("model.", "data.", "--model", "--data", "--trainer.callbacks", "trainer.callbacks."))


def option_list(actions: Iterable[argparse.Action]) -> str:
    rows = []
    for action in actions:
        if action.dest == "help" or action.dest.endswith(".help"):
            continue
        text = markdown((action.help or "") % {**vars(action), "prog": ""})
        value = action.default
        simple = isinstance(value, int | float | str | Path) and value not in ("", argparse.SUPPRESS, False)
        default = f" (default: `{value}`)" if simple and "default" not in text.lower() else ""
        choices = f" One of: {', '.join(map(str, action.choices))}." if action.choices else ""
        rows.append(f"- `{option(action)}`{default}: {text}{choices}\n")
    return "".join(rows)


def markdown(text: str) -> str:
    """Help text as one line of Markdown: special characters outside code are escaped."""
    # The help of Lightning contains reStructuredText roles and links.
    text = re.sub(r":\w+:`~?", "`", re.sub(r"`([^`<]+) <([^>]+)>`_+", r"\1 (\2)", " ".join(text.split())))
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*_\[])", r"\\\1", part) for part in parts)


def configurations_page() -> str:
    """Every shipped configuration: its header comment as text, then its content."""
    parts = [
        "# Configurations\n\nThe configurations of the package, which are found from any folder as `configs/...`. "
        "Those in `callbacks/` are overlays: pass them with a second `--config`.\n"
    ]
    folder = None
    for path in sorted((ROOT / "configs").rglob("*.yaml"), key=lambda path: (path.parent, path.name)):
        if path.parent != folder:
            folder = path.parent
            parts.append(f"## {folder.relative_to(ROOT)}/\n")
        lines = path.read_text().splitlines()
        count = next(i for i, line in enumerate(lines) if not line.startswith("#"))
        parts.append(f"### {path.name}\n\n{header(lines[:count])}\n```yaml\n" + "\n".join(lines[count:]) + "\n```\n")
    return "\n".join(parts)


def header(comments: Iterable[str]) -> str:
    """A header comment as Markdown: indented lines are commands."""
    text = ""
    for comment in comments:
        if comment.startswith("#   "):
            text += f"\n```sh\n{comment[4:].strip()}\n```\n\n"
        else:
            text += re.sub(r"(?<!\w)(--[\w.-]+|[\w/]+/[\w./<>*-]*|\w+_\w+)", r"`\1`", comment[2:]) + "\n"
    return text


def examples_page() -> str:
    """The source of every example."""
    parts = ["# Examples\n\nThe [guide](../guide.md#examples) lists the topics.\n"]
    paths = sorted((ROOT / "examples").glob("*.py"))
    parts += [f"## {path.name}\n\n```python\n{path.read_text()}```\n" for path in paths]
    return "\n".join(parts)
