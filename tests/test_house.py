"""The house keeps its rules: who imports whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_cifar
from lightning_cifar import cli

PACKAGE = Path(lightning_cifar.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What each part may import of the package. See docs/architecture.md.
ALLOWED = {
    "__init__": set(),
    "__main__": {"cli"},
    "errors": set(),
    "schedules": set(),
    "artifacts": set(),
    "configuration": {"duplicates", "errors"},
    "trainer_settings": {"errors"},
    "notebook": {"artifacts"},
    "shipped": set(),
    "cli": {"configuration", "errors", "runs", "shipped"},  # and its table of commands
    "export": {"artifacts", "checkpoints", "data", "errors", "models", "trained"},
    "doctor": {"data", "errors", "ext"},
    "completion": {
        "callbacks",
        "cli",
        "completion_scripts",
        "data",
        "errors",
        "lr_find",
        "models",
        "run_parser",
        "runs",
    },
    "completion_scripts": set(),
    "explain": {"errors", "analysis", "explanations", "image_files", "trained"},
    "explanations": {"errors", "artifacts", "plots", "image_files", "trained"},
    "image_files": {"errors"},
    "trained": {"errors", "checkpoints", "data", "models"},
    "lr_find": {"callbacks", "errors", "lr_sweep_run"},
    "lr_sweep_run": {"callbacks", "runs"},
    "regimes": {"errors", "schedules", "plots", "artifacts"},
    "checkpoints": {"configuration", "errors", "integrity"},
    "duplicates": {"errors"},
    "resume": {"errors", "integrity"},
    "integrity": {"artifacts", "errors"},
    "checkpoint_io": {"integrity"},
    "bench": {"errors", "ext", "artifacts", "plots"},
    "gradcheck": {"errors", "ext", "artifacts", "plots"},
    "run_parser": {"callbacks", "data", "errors", "models"},
    "run_record": {"artifacts", "checkpoints"},
    "default_callbacks": {"callbacks", "data", "models", "run_notes"},
    "expected_warnings": set(),
    "full_disk": {"errors", "resume"},
    "runs": {
        "full_disk",
        "run_notes",
        "run_parser",
        "run_record",
        "default_callbacks",
        "expected_warnings",
        "checkpoint_io",
        "checkpoints",
        "trainer_settings",
        "errors",
        "resume",
        "artifacts",
        "callbacks",
        "data",
        "models",
        "studies",
        "trained",
    },
    "studies": {"shipped", "analysis", "plots", "artifacts", "callbacks", "resume", "duplicates", "errors", "runs"},
    "callbacks": {"analysis", "plots", "artifacts", "integrity"},
    "models": {"schedules", "ext", "analysis.modes", "artifacts", "errors"},
    "data": {"image_files"},
    "analysis": set(),
    "plots": set(),
    "ext": set(),
}
SIBLINGS = {
    "export": {"checking", "reading", "writing"},
    "data": {
        "draws",
        "rows",
        "geometry",
        "colour",
        "trivial",
        "augment",
        "batches",
        "images",
        "per_sample",
        "pipelines",
        "sources",
        "download",
        "idx",
        "pickles",
        "shapes",
        "image_tree",
        "decoding",
    },
    "callbacks": {"class_names", "lr_sweep", "probe", "snapshots", "twins"},
    "models": {
        "classifier",
        "feature_cache",
        "hand_made",
        "optimizers",
        "regressor",
        "trainable",
        "lockstep",
        "members",
        "parameter_rows",
        "pretrained_weights",
        "stacked",
        "stacking",
        "transfer",
    },
    "analysis": {
        "convolution",
        "filtering",
        "footprints",
        "layers",
        "layout",
        "modes",
        "partial_forward",
        "places",
        "tracing",
        "windows",
    },
    "studies": {
        "spec",
        "jobs",
        "curves",
        "results",
        "run",
        "local",
        "ray_executor",
        "report",
        "report_build",
        "report_curves",
        "report_pictures",
        "report_tables",
    },
    "doctor": {"command", "datasets", "environment", "findings", "inside", "libraries", "machine", "packages"},
    "plots": {"lr_range_view"},
    "ext": {"conv_geometry", "_conv_direct", "layers", "tape"},
}
FOREIGN = {
    "plots": {"torch", "lightning"},
    "analysis": {"lightning", "matplotlib", "plotly"},
    "data": {"matplotlib"},
    "models": {"matplotlib"},
    "ext": {"torch", "lightning", "matplotlib"},
    "cli": {"torch", "lightning"},
    "regimes": {"torch", "lightning"},
    "gradcheck": {"torch", "lightning"},
    "errors": {"torch", "lightning", "jsonargparse"},
    "image_files": {"torch", "lightning", "matplotlib"},
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
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    part = parts[0]
    for name in imports_of(path):
        words = name.split(".")
        if words[0] == "lightning_cifar" and len(words) > 1:
            inside = words[1:]
            if inside[0] == part and len(parts) > 1:
                if parts[-1] != "__init__" and len(inside) > 1:
                    assert inside[1] in SIBLINGS.get(part, set()), f"{path.name} imports its sibling {name}"
            else:
                allowed = {inside[0], ".".join(inside[:2])} & ALLOWED[part]
                assert allowed, f"{part} must not import {name}"
        assert words[0] not in FOREIGN.get(part, set()), f"{part} must not import {words[0]}"
        assert words[0] != "pytorch_lightning", "import lightning.pytorch, never both"
        assert "pyplot" not in name


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_neither_torch_nor_matplotlib() -> None:
    assert not loaded_by("import lightning_cifar, lightning_cifar.cli") & {"torch", "lightning", "matplotlib", "numpy"}


def test_importing_models_data_and_callbacks_loads_no_albumentations() -> None:
    loaded = loaded_by("import lightning_cifar.models, lightning_cifar.data, lightning_cifar.callbacks")
    assert not loaded & {"albumentations", "pytorch_lightning"}


@pytest.mark.parametrize("words", [["--help"], ["--no_such_option"]], ids=" ".join)
@pytest.mark.parametrize("command", sorted(cli.MODULES))
def test_help_and_mistakes_of_our_commands_load_neither_torch_nor_matplotlib(command: str, words: list[str]) -> None:
    if command == "lr-find" and words != ["--help"]:
        words = ["--num_steps", "many"]  # options that are not its own are those of fit
    call = f"from lightning_cifar.cli import main\ntry: main({[command, *words]})\nexcept SystemExit: pass\nprint()"
    code = f"import sys\n{call}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"usage: lightning-cifar {command}" in done.stdout or "lightning-cifar: error: " in done.stderr
    slow = {"torch", "lightning", "matplotlib", "scipy", "jsonargparse"}
    assert not slow & set(done.stdout.splitlines()[-1].split())
