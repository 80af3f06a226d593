"""Import rules of the package, and the cost of its imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_cifar
from lightning_cifar.commands.table import COMMANDS

PACKAGE = Path(lightning_cifar.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What each folder or file at the top may import of the others. See docs/architecture.md.
ALLOWED = {
    "__init__": {"lazy"},
    "lazy": set(),
    "__main__": {"cli", "runs"},
    "cli": {"checkpoints", "commands", "configuration", "errors", "files", "memory", "runs", "streams"},
    "commands": {
        "analysis",
        "artifacts",
        "callbacks",
        "checkpoints",
        "data",
        "errors",
        "ext",
        "files",
        "models",
        "plots",
        "runs",
        "schedules",
        "studies",
    },
    "studies": {"analysis", "callbacks", "configuration", "errors", "files", "memory", "plots", "runs"},
    "runs": {"analysis", "artifacts", "callbacks", "checkpoints", "configuration", "data", "errors", "files", "models"},
    "checkpoints": {"configuration", "data", "errors", "files", "models"},
    "callbacks": {"analysis", "artifacts", "files", "plots"},  # neither models nor data: they serve any LightningModule
    "models": {"artifacts", "errors", "ext", "schedules"},
    "data": {"errors", "files"},
    "artifacts": {"files", "plots"},
    "configuration": {"errors", "files"},
    "files": {"errors"},
    "notebook": {"artifacts", "files"},
    "errors": set(),
    "schedules": set(),
    "memory": set(),
    "streams": set(),
    "analysis": set(),
    "plots": {"lazy"},
    "ext": set(),
}
FOREIGN = {
    "plots": {"torch", "lightning"},
    "analysis": {"lightning", "matplotlib", "plotly"},
    "data": {"matplotlib"},
    "models": {"matplotlib"},
    "ext": {"torch", "lightning", "matplotlib"},
    "cli": {"checkpoints", "commands", "configuration", "errors", "files", "memory", "runs", "streams"},
    "errors": {"torch", "lightning", "jsonargparse"},
    "files": {"torch", "lightning", "matplotlib"},
}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports by name, inside functions too, but not for type checking alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "lightning_cifar":
                found |= {f"lightning_cifar.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_rule(path: Path) -> None:
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in imports_of(path):
        words = name.split(".")
        if words[0] == "lightning_cifar" and len(words) > 1 and words[1] != part:
            assert words[1] in ALLOWED[part], f"{part} must not import {name}"
        assert words[0] not in FOREIGN.get(part, set()), f"{part} must not import {words[0]}"
        assert words[0] != "pytorch_lightning", "import lightning.pytorch, never both"
        assert "pyplot" not in name


def test_no_files_import_each_other() -> None:
    """Neither directly nor in a circle. Imports inside functions count too."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    files = {name.removesuffix(".__init__"): path for name, path in names.items()}
    pending = {name: {other for other in imports_of(path) if other in files} - {name} for name, path in files.items()}
    while free := {name for name, others in pending.items() if not others & pending.keys()}:
        pending = {name: others for name, others in pending.items() if name not in free}
    assert not pending, f"in a circle, or above one: {sorted(pending)}"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_neither_torch_nor_matplotlib() -> None:
    assert not loaded_by("import lightning_cifar, lightning_cifar.cli") & {"torch", "lightning", "matplotlib", "numpy"}


@pytest.mark.parametrize("words", [["--help"], ["--no_such_option"]], ids=" ".join)
@pytest.mark.parametrize("command", sorted(name for name, command in COMMANDS.items() if command.module))
def test_help_and_mistakes_of_our_commands_load_neither_torch_nor_matplotlib(command: str, words: list[str]) -> None:
    if command == "lr-find" and words != ["--help"]:
        words = ["--num_steps", "many"]  # options that are not its own are those of fit
    call = f"from lightning_cifar.cli import main\ntry: main({[command, *words]})\nexcept SystemExit: pass\nprint()"
    code = f"import sys\n{call}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"usage: lightning-cifar {command}" in done.stdout or "lightning-cifar: error: " in done.stderr
    slow = {"torch", "lightning", "matplotlib", "scipy", "jsonargparse"}
    assert not slow & set(done.stdout.splitlines()[-1].split())


ROOT = PACKAGE.parent
TEXTS = [
    path
    for folder in ("lightning_cifar", "tests", "docs", "configs", "examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".pyx", ".c", ".h", ".js", ".css", ".md", ".yaml") and "_build" not in path.parts
]
UNUSUAL = ("mend", "mended", "told", "owe", "owes", "stranger", "strangers", "one's own", "is let be", "goes away")


def test_texts_use_standard_terms() -> None:
    """Words of the list in docs/contributing.md."""
    pattern = re.compile(rf"\b({'|'.join(UNUSUAL)})\b", re.IGNORECASE)
    texts = [*TEXTS, ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "pyproject.toml", ROOT / "Makefile"]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line) and "UNUSUAL = " not in line
    ]
    assert found == []
