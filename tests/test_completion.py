"""Completion in real shells offers all commands, options and listed values."""

from __future__ import annotations

import argparse
import inspect
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from lightning.pytorch import Trainer

from lightning_cifar import cli, data, models
from lightning_cifar.commands import completion
from lightning_cifar.commands.table import COMMANDS
from lightning_cifar.models.arguments import argument_names
from lightning_cifar.runs.arguments import Arguments
from lightning_cifar.runs.early_options import check_options, settings_of, trainer_settings
from lightning_cifar.runs.parser import choosable_classes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's parser, as it is built

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh (apt-get install zsh)")
needs_fish = pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish (apt-get install fish)")

Actions = dict[str, list[argparse.Action]]


@pytest.fixture(scope="module")
def actions() -> Actions:
    return completion._read_actions()


@pytest.fixture(scope="module")
def scripts(actions: Actions) -> dict[str, str]:
    """The script of each shell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completion, "_read_actions", lambda: actions)
        return {shell: completion.write_script(shell) for shell in ("bash", "zsh", "fish")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some files to choose from."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("demo.yaml", "deep net.yml", "demo.txt", "best.ckpt", "ba$(touch pwned).yaml"):
        (folder / name).touch()
    (folder / "derived").mkdir()
    return folder


def run(shell: str, script: str, where: Path) -> list[str]:
    """Lines that a shell prints."""
    done = subprocess.run([shell], input=script, capture_output=True, text=True, cwd=where, check=False)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def complete(scripts: dict[str, str], folder: Path) -> Callable[..., list[str]]:
    """Return the completions of bash for the last argument; bash splits arguments at "="."""

    def offered(*args: str) -> list[str]:
        quoted = " ".join(map(shlex.quote, ["lightning-cifar", *args]))
        script = f"{scripts['bash']}\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(args)}\n_lightning_cifar\n"
        return run("bash", script + 'for word in "${COMPREPLY[@]}"; do printf "%s\\n" "$word"; done\n', folder)

    return offered


# ---------------------------------------------------------------- situations

SITUATIONS = [
    (["va"], ["validate"]),
    (["--v"], ["--version"]),
    (["fit", "--resu"], ["--resume"]),
    (["fit", "--model", "Le"], ["LeNet"]),
    (["fit", "--model", "=", "Le"], ["LeNet"]),
    (["fit", "--data", "Noisy"], ["NoisyLineDataModule"]),
    (["fit", "--model", "LeNet", "--model.activ"], ["--model.activation"]),
    (["fit", "--model", "=", "LeNet", "--model.pooling", "a"], ["average"]),
    (["fit", "--config", "x.yaml", "--model.varian"], ["--model.variant"]),
    (["fit", "--model.schedule", "=", "co"], ["constant", "cosine"]),
    (["lr-find", "--spacing", "="], ["geometric", "linear"]),
    (["fit", "--model.optimizer", ""], ["sgd", "adam", "adamw", "rmsprop", "muon"]),
    (["fit", "--test_after_fit", ""], ["true", "false"]),
    (["fit", "--model.lr", ""], []),
    (["fit", "--trainer.max_ep"], ["--trainer.max_epochs"]),
    (["fit", "--trainer.callbacks+", "=", "WeightG"], ["WeightGIF"]),
    (["fit", "--trainer.callbacks+", "EarlyS"], ["EarlyStopping"]),
    (["fit", "--trainer.callbacks+", "=", "WeightGIF", "--trainer.callbacks.metr"], ["--trainer.callbacks.metric"]),
    (["validate", "--ckpt_path", "be"], ["best.ckpt"]),
    (["fit", "--config", "de"], ["deep net.yml", "demo.yaml", "derived"]),
    (["fit", "--config", "=", "dem"], ["demo.yaml"]),
    (["fit", "--config", "ba"], ["ba$(touch pwned).yaml"]),
    (["fit", "--run_dir", "d"], ["derived"]),
    (["fit", "--model.help", "LeN"], ["LeNet"]),
    (["lr-find", "--spacing", ""], ["geometric", "linear"]),
    (["lr-find", "--ckpt"], []),
    (["lr-find", "--model", "LeNet", "--model.activ"], ["--model.activation"]),
    (["explain", "--images", "a.png", "de"], ["deep net.yml", "demo.txt", "demo.yaml", "derived"]),
    (["explain", "--images", "a.png", "b.png", "--ckpt"], ["--ckpt_path"]),
    (["study", "dem"], ["demo.yaml"]),
    (["bench", ""], ["conv"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["gradcheck", "--layers", "--function", ""], ["f1", "f2", "f3"]),
    (["regimes", "--lr", "-0.5", "--lo"], ["--log"]),
    (["doctor", "--js"], ["--json"]),
    (["fit", "$(touch pwned)", "--x", "`touch pwned`", "--seed_ev"], ["--seed_everything"]),
]


@needs_bash
@pytest.mark.parametrize(("args", "expected"), SITUATIONS, ids=lambda args: " ".join(args)[:40])
def test_bash_completes(args: list[str], expected: list[str], complete: Callable[..., list[str]], folder: Path) -> None:
    assert sorted(complete(*args)) == sorted(expected)
    assert not (folder / "pwned").exists()


@needs_bash
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_offered(
    command: str, complete: Callable[..., list[str]], actions: Actions
) -> None:
    assert command in complete("")
    offered = set(complete(command, "-"))
    assert {name for action in actions[command] for name in action.option_strings} == offered
    assert "--help" in offered
    if not COMMANDS[command].module:
        assert {"--config", "--model", "--data", "--trainer.precision", "--seed_everything"} <= offered
    used = {word for word in COMMANDS[command].example.split() if word.startswith("--")}
    assert used <= offered, "the example in the usage text uses options that there are"


@needs_bash
@pytest.mark.parametrize("option", ["--model", "--data", "--trainer.callbacks+"])
def test_every_public_class_and_its_settings_are_offered(option: str, complete: Callable[..., list[str]]) -> None:
    from jsonargparse import ArgumentParser

    from lightning_cifar import callbacks, data, models
    from lightning_cifar.runs.parser import choosable_classes

    module = {"--model": models, "--data": data, "--trainer.callbacks+": callbacks}[option]
    classes = choosable_classes(module)
    assert classes.keys() <= set(complete("fit", option, ""))
    key = option.strip("-+")
    offered = set(complete("fit", f"--{key}."))
    for value in classes.values():
        parser = ArgumentParser()
        parser.add_class_arguments(value, key, fail_untyped=False)
        names = {name for name in parser._option_string_actions if name.startswith(f"--{key}.")}
        assert names <= offered, value


# ---------------------------------------------------------------- other shells


@needs_zsh
def test_zsh_accepts_the_script(scripts: dict[str, str], tmp_path: Path) -> None:
    assert scripts["zsh"].startswith("#compdef lightning-cifar\n"), "compinit reads the first line"
    (tmp_path / "_lightning-cifar").write_text(scripts["zsh"])
    assert run("zsh", "zsh -n _lightning-cifar\n", tmp_path) == []


def test_zsh_takes_values_after_an_equals_sign(scripts: dict[str, str]) -> None:
    assert "{-c=,--config=}" in scripts["zsh"]
    assert '"--model.lr=[' in scripts["zsh"]
    assert '"--json[' in scripts["zsh"], "a flag has no value"


@needs_fish
def test_fish_completes(scripts: dict[str, str], folder: Path) -> None:
    def complete(*args: str) -> list[str]:
        line = " ".join(["lightning-cifar", *args])
        lines = run("fish", f"{scripts['fish']}\ncomplete -C {shlex.quote(line)}\n", folder)
        return [line.partition("\t")[0] for line in lines]

    assert {*complete("")} >= {*COMMANDS}
    assert complete("fit", "--model", "LeN") == ["LeNet"]
    assert complete("fit", "--model=LeN") == ["--model=LeNet"]
    assert complete("fit", "--model.pooling", "av") == ["average"]
    assert complete("fit", "--trainer.callbacks+=WeightG") == ["--trainer.callbacks+=WeightGIF"]
    assert complete("fit", "--config", "dem") == ["demo.yaml"]
    assert complete("bench", "") == ["conv"]
    assert complete("explain", "--images", "a", "b", "--ckpt") == ["--ckpt_path"]


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_prints_the_script(
    shell: str,
    actions: Actions,
    scripts: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(completion, "_read_actions", lambda: actions)
    assert cli.main(["completion", shell]) == 0
    output = capsys.readouterr().out
    assert output == scripts[shell]
    for command in COMMANDS:
        assert command in output
    assert os.path.expanduser("~") + os.sep not in output, "it holds no path of this machine"


def test_an_unknown_shell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "zhs"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("lightning-cifar: error: ")
    assert "'zhs'" in message
    assert "fish" in message
    assert message.count("\n") == 1


def test_no_option_of_a_parser_is_rejected_before_torch_is_imported(actions: Actions) -> None:
    for command in ("fit", "validate", "test", "predict"):
        names = {option for action in actions[command] for option in action.option_strings if option.startswith("--")}
        for option in names - {"--config"}:
            check_options(Arguments(command, (option, "1")))


@pytest.mark.parametrize(("section", "module"), [("model", models), ("data", data)])
def test_all_arguments_of_a_class_are_found_in_its_source(section: str, module: ModuleType) -> None:
    for name, kind in choosable_classes(module).items():
        assert set(argument_names(kind)) <= settings_of(section, name), name
    assert trainer_settings() == set(inspect.signature(Trainer).parameters)
