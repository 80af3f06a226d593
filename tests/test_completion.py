"""Completion in real shells, from a table that is read from the real parsers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from lightning_cifar import cli
from lightning_cifar.commands.completion.command import _short, read_table
from lightning_cifar.commands.completion.scripts import RENDERERS, Group, Option, Table
from lightning_cifar.commands.table import COMMANDS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's parser, as it is built

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="there is no bash")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh (apt-get install zsh)")
needs_fish = pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish (apt-get install fish)")
# A name that each of the shells would run, expand or cut if it were not quoted; and a description.
ODD = "a'b$(touch pwned)`touch pwned`\"\\*:{@groups@};&"


@pytest.fixture(scope="module")
def table() -> Table:
    return read_table()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some files to choose from."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("demo.yaml", "deep net.yml", "demo.txt", "best.ckpt"):
        (folder / name).touch()
    (folder / "derived").mkdir()
    return folder


def run(shell: str, script: str, where: Path) -> list[str]:
    """Lines that a shell prints."""
    done = subprocess.run([shell], input=script, capture_output=True, text=True, cwd=where, timeout=60, check=False)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def in_bash(script: str, words: list[str], where: Path, breaks: str = "=") -> list[str]:
    """What bash offers for the last of the words, which bash has cut."""
    quoted = " ".join(map(shlex.quote, ["lightning-cifar", *words]))
    return run(
        "bash",
        f"{script}\nCOMP_WORDBREAKS=' {breaks}'\nCOMP_WORDS=({quoted})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
        '_lightning_cifar\nfor word in "${COMPREPLY[@]}"; do printf "%s\\n" "$word"; done\n',
        where,
    )


def in_zsh(script: str, words: list[str], where: Path) -> list[str]:
    """What zsh's own functions are given, by its names; zsh cuts no words at "="."""
    quoted = " ".join(map(shlex.quote, ["lightning-cifar", *words]))
    stubs = """
compdef() { :; }
compset() { PREFIX=${PREFIX#*=}; }
_files() { print -r -- "files $*"; }
_describe() { local each; for each in "${(@P)${@[-1]}}"; do print -r -- "$each"; done; }
"""
    return run(
        "zsh",
        f"{stubs}{script}\nwords=({quoted}); CURRENT=${{#words}}; PREFIX=${{words[CURRENT]}}; _lightning-cifar\n",
        where,
    )


def in_fish(script: str, words: list[str], where: Path) -> list[str]:
    line = " ".join(["lightning-cifar", *words])
    return run("fish", f"{script}\ncomplete -C {shlex.quote(line)}\n", where)


@pytest.fixture(scope="module")
def complete(table: Table, folder: Path) -> Callable[..., list[str]]:
    script = RENDERERS["bash"](table)
    return lambda *words, **options: in_bash(script, list(words), folder, **options)


# ---------------------------------------------------------------- situations

SITUATIONS = [
    (["va"], ["validate"]),
    (["--v"], ["--version"]),
    (["fit", "--resu"], ["--resume"]),
    (["fit", "--model", "Le"], ["LeNet"]),
    (["fit", "--model", "=", "Le"], ["LeNet"]),
    (["fit", "--data", "Noisy"], ["NoisyLineDataModule"]),
    (["fit", "--model", "LeNet", "--model.poo"], ["--model.pooling"]),
    (["fit", "--model", "=", "lightning_cifar.models.LeNet", "--model.pooling", "a"], ["average"]),
    (["fit", "--model", "MLP", "--model.poo"], []),
    (["fit", "--config", "x.yaml", "--model.varian"], ["--model.variant"]),
    (["fit", "--model.schedule", "=", "co"], ["constant", "cosine"]),
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
    (["fit", "--run_dir", "d"], ["derived"]),
    (["fit", "--model.help", "LeN"], ["LeNet"]),
    (["lr-find", "--spacing", ""], ["geometric", "linear"]),
    (["lr-find", "--ckpt"], []),
    (["lr-find", "--model", "LeNet", "--model.pooli"], ["--model.pooling"]),
    (["explain", "--images", "a.png", "b.png", "--mod"], ["--mode"]),
    (["study", "dem"], ["demo.yaml"]),
    (["bench", ""], ["conv"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["gradcheck", "--layers", "--function", ""], ["f1", "f2", "f3"]),
    (["regimes", "--lr", "-0.5", "--lo"], ["--log"]),
    (["doctor", "--js"], ["--json"]),
    (["nonsense", ""], []),
]


@needs_bash
@pytest.mark.parametrize(("words", "expected"), SITUATIONS, ids=lambda words: " ".join(words)[:40])
def test_bash_completes(words: list[str], expected: list[str], complete: Callable[..., list[str]]) -> None:
    assert sorted(complete(*words)) == sorted(expected)


@needs_bash
def test_bash_that_does_not_cut_at_the_equals_sign(complete: Callable[..., list[str]]) -> None:
    assert complete("fit", "--model=Le", breaks="") == ["--model=LeNet"]
    assert complete("fit", "--model=LeNet", "--model.activation=t", breaks="") == ["--model.activation=tanh"]


@needs_bash
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_offered(
    command: str, complete: Callable[..., list[str]], table: Table
) -> None:
    assert command in complete("")
    offered = set(complete(command, "-"))
    assert {"--help"} <= offered
    if COMMANDS[command].module:
        parser = import_module(f"lightning_cifar.commands.{COMMANDS[command].module}")._parser()
        assert set(parser._option_string_actions) <= offered
    else:
        options = {name for option in table.groups["run"].options for name in option.names}
        assert {"--config", "--model", "--data", "--trainer.precision", "--seed_everything"} <= options <= offered


def test_the_parser_of_fit_is_the_one_that_runs(table: Table) -> None:
    """What is completed is what ``fit --help`` shows."""
    from lightning_cifar.commands.completion.command import _run_options

    for command, options in _run_options().items():
        groups = [table.groups[name] for name in table.commands[command][1][:2]]
        ours = {name for group in groups for option in group.options for name in option.names}
        assert ours - {"--resume"} == {name for option in options for name in option.names}


@needs_bash
@pytest.mark.parametrize("place", ["model", "data", "trainer.callbacks"])
def test_every_setting_of_every_class_is_offered(place: str, complete: Callable[..., list[str]], table: Table) -> None:
    from lightning_cifar import callbacks, data, models

    module = {"model": models, "data": data, "trainer.callbacks": callbacks}[place]
    bases = {"Classifier", "Regressor", "Trainable", "ImageDataModule"}
    assert set(module.__all__) - bases <= set(table.classes[place])
    for name, options in list(table.classes[place].items())[:4]:
        offered = complete("fit", f"--{place}+" if "." in place else f"--{place}", name, f"--{place}.")
        assert {each for option in options for each in option.names} <= set(offered)


def test_settings_say_what_they_can_be(table: Table) -> None:
    options = {option.names[0]: option for option in table.classes["model"]["LeNet"]}
    assert options["--model.schedule"].words == ("constant", "linear", "cosine", "exponential", "step")
    assert options["--model.nesterov"].words == ("true", "false")
    assert options["--model.backend"].words[-1] == "null"
    assert options["--model.lr"].kind == "any"
    assert options["--model.lr"].help == "Learning rate: the peak of the schedule"
    assert table.commands["fit"][0].startswith("train a network")


def test_a_description_is_one_short_sentence() -> None:
    assert _short("Shape of :func:`~lightning_cifar.lr_factor`. More.\nDefault: ``x``.") == "Shape of lr_factor"
    assert _short("``muon``\x1b serves e.g. 3.5 of them, see above") == "muon serves e.g. 3.5 of them, see above"
    assert len(_short("word " * 50)) <= 76
    assert _short("word " * 50).endswith(" word ...")


# ---------------------------------------------------------------- other shells


@needs_zsh
def test_zsh_completes(table: Table, folder: Path) -> None:
    script = RENDERERS["zsh"](table)
    assert script.startswith("#compdef lightning-cifar\n"), "compinit reads the first line"

    def complete(*words: str) -> list[str]:
        return in_zsh(script, list(words), folder)

    assert "regimes:draw learning-rate regimes, without training: --name cosine, or --schedule cosine --warmup 0.2" in (
        complete("")
    )
    assert complete("fit", "--model", "LeNet", "--model.pooling", "") == ["max", "average"]
    assert complete("fit", "--model=LeNet", "--model.pooling=") == ["max", "average"]
    assert "--model.lr:Learning rate: the peak of the schedule" in complete("fit", "--model", "LeNet", "--model.")
    assert "WeightGIF" in complete("fit", "--trainer.callbacks+=")
    assert complete("fit", "--config", "") == complete("fit", "--config=") == ["files -g *.(yaml|yml)"]
    assert complete("fit", "--run_dir", "") == ["files -/"]
    assert complete("bench", "") == ["conv"]
    assert complete("nonsense", "") == []


@needs_fish
def test_fish_completes(table: Table, folder: Path) -> None:
    script = RENDERERS["fish"](table)

    def complete(*words: str) -> list[str]:
        return in_fish(script, list(words), folder)

    assert {line.partition("\t")[0] for line in complete("")} >= {*COMMANDS}
    assert complete("fit", "--model", "LeN") == ["LeNet"]
    assert complete("fit", "--model=LeN") == ["--model=LeNet"]
    assert complete("fit", "--model", "LeNet", "--model.pooling", "") == ["average", "max"]
    assert complete("fit", "--model=LeNet", "--model.pooling=av") == ["--model.pooling=average"]
    assert complete("fit", "--model", "LeNet", "--model.lr") == ["--model.lr\tLearning rate: the peak of the schedule"]
    # fish offers what is merely like the word, too.
    assert not any("--model.pooling" in line for line in complete("fit", "--model", "MLP", "--model.pooling"))
    assert complete("fit", "--trainer.callbacks+=WeightG") == ["--trainer.callbacks+=WeightGIF"]
    assert complete("fit", "--trainer.callbacks+", "WeightGIF", "--trainer.callbacks.metr")[0].startswith(
        "--trainer.callbacks.metric\t"
    )
    assert [line.partition("\t")[0] for line in complete("fit", "--config", "dem")] == ["demo.yaml"]
    assert [line.partition("\t")[0] for line in complete("fit", "--config=dem")] == ["--config=demo.yaml"]
    assert complete("bench", "") == ["conv"]
    assert complete("explain", "--images", "a", "b", "--mod")[0].startswith("--mode\t")
    assert complete("nonsense", "") == []


# ---------------------------------------------------------------- names that a shell would read as code


@pytest.fixture(scope="module")
def odd() -> Table:
    option = Option((f"--{ODD}",), ODD, "words", (ODD,))
    groups = {"": Group([]), "run": Group([option], Option((), "", "words", (ODD,)))}
    return Table({"run": (ODD, ("run", "model:"))}, groups, {"model": {ODD: [option]}})


@needs_bash
def test_odd_names_in_bash(odd: Table, tmp_path: Path) -> None:
    script = RENDERERS["bash"](odd)
    [offered] = in_bash(script, ["run", f"--{ODD}", ""], tmp_path)
    assert run("bash", f"printf '%s\\n' {offered}\n", tmp_path) == [ODD], "it stands for itself on the command line"
    assert in_bash(script, ["run", "$(touch pwned)", "--x", "`touch pwned`", "$(touch pwned)"], tmp_path) == []
    assert not (tmp_path / "pwned").exists()


@needs_zsh
def test_odd_names_in_zsh(odd: Table, tmp_path: Path) -> None:
    [offered] = in_zsh(RENDERERS["zsh"](odd), ["run", f"--{ODD}", ""], tmp_path)
    assert offered.replace("\\:", ":").replace("\\\\", "\\") == ODD
    assert not (tmp_path / "pwned").exists()


@needs_fish
def test_odd_names_in_fish(odd: Table, tmp_path: Path) -> None:
    script = RENDERERS["fish"](odd)
    assert f"run\t{ODD}" in in_fish(script, [""], tmp_path)
    assert in_fish(script, ["run", ""], tmp_path)
    assert not (tmp_path / "pwned").exists()


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("shell", RENDERERS)
def test_the_command_prints_the_script(
    shell: str, table: Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_cifar.commands.completion.command.read_table", lambda: table)
    assert cli.main(["completion", shell]) == 0
    output = capsys.readouterr().out
    assert output == RENDERERS[shell](table)
    for command in COMMANDS:
        assert f"'{command}" in output
    assert os.path.expanduser("~") + os.sep not in output, "what this machine is called is nobody's business"


def test_an_unknown_shell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "zhs"]) == 2
    expected = "there is no completion for 'zhs'. Did you mean zsh? There are bash, zsh, fish.\n"
    assert capsys.readouterr().err == f"lightning-cifar: error: {expected}"
