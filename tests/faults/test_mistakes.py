"""A hundred mistakes on the command line and in configurations: exit code 2, at most three lines, the key is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from lightning_cifar import cli

DATA = "--data SyntheticDataModule --data.num_train 64 --data.num_val 32 --data.num_test 32 --data.batch_size 32"
FIT = f"fit --model LeNet {DATA} --trainer.max_epochs 1 --trainer.enable_progress_bar false --trainer.accelerator cpu"
STUDY = "study good_study.yaml --out out"


class Mistake(NamedTuple):
    args: str
    named: str  # must stand in the message
    config: str | None = None  # written to bad.yaml
    late: bool = False  # cannot be known before an epoch was trained, whose folder stays


def fit(args: str, named: str) -> Mistake:
    return Mistake(f"{FIT} {args}", named)


def config(text: str, named: str) -> Mistake:
    return Mistake(f"{FIT} --config bad.yaml", named, text)


def study(text: str, named: str) -> Mistake:
    return Mistake("study bad.yaml --out out", named, text)


TABLE = [
    # commands and files: what needs no torch comes first
    Mistake("fti", "'fti'"),
    Mistake("fit --config absent.yaml", "absent.yaml"),
    Mistake("fit --config=absent.yaml", "absent.yaml"),
    Mistake("fit -c folder", "folder"),
    Mistake("test --ckpt_path absent.ckpt", "absent.ckpt"),
    Mistake("test --ckpt_path=folder", "folder"),
    Mistake("fit --resume absent", "absent"),
    Mistake("fit --resume", "--resume"),
    Mistake("fit --resume folder", "folder"),
    Mistake("fit --resume file", "file"),
    Mistake("fit --resume folder --run_dir x", "--run_dir"),
    Mistake("test --resume folder", "--resume"),
    Mistake("regimes --name cosin", "cosin"),
    Mistake("regimes --warmup 2", "warmup"),
    Mistake("regimes --lr -1", "lr"),
    Mistake("regimes --colour red", "--colour"),
    Mistake("gradcheck --num 0", "--num"),
    Mistake("gradcheck --function f9", "--function"),
    Mistake("gradcheck --draw x.gif", "--draw"),
    Mistake("report absent", "absent"),
    Mistake("report folder --out x.txt", "--out"),
    Mistake("bench conv --rounds 0", "--rounds"),
    Mistake("bench conv --shape 1x2", "--shape"),
    Mistake("bench races", "races"),
    # options of fit
    fit("--trainer.max_epoch 3", "--trainer.max_epoch"),
    fit("--trainer.max_epochs x", "trainer.max_epochs"),
    fit("--trainer.max_epochs", "max_epochs"),
    fit("--trainer.max_epochs -5", "max_epochs"),
    fit("--trainer.max_steps -5", "max_steps"),
    fit("--trainer.accumulate_grad_batches 0", "accumulate_grad_batches"),
    fit("--trainer.gradient_clip_val -1", "gradient_clip_val"),
    fit("--trainer.gradient_clip_algorithm median", "gradient_clip_algorithm"),
    fit("--trainer.log_every_n_steps -1", "log_every_n_steps"),
    fit("--trainer.check_val_every_n_epoch 0", "check_val_every_n_epoch"),
    fit("--trainer.check_val_every_n_epoch -1", "check_val_every_n_epoch"),
    fit("--trainer.val_check_interval 500", "val_check_interval"),
    fit("--trainer.val_check_interval 0", "val_check_interval"),
    fit("--trainer.limit_train_batches -1", "limit_train_batches"),
    fit("--trainer.limit_train_batches 1.5", "limit_train_batches"),
    fit("--trainer.overfit_batches -2", "overfit_batches"),
    fit("--trainer.num_sanity_val_steps many", "num_sanity_val_steps"),
    fit("--trainer.precision 17", "precision"),
    fit("--trainer.accelerator quantum", "accelerator"),
    fit("--trainer.devices 0", "devices"),
    fit("--trainer.devices many", "devices"),
    fit("--trainer.strategy dpp", "strategy"),
    fit("--trainer.profiler magic", "profiler"),
    fit("--trainer.max_time soon", "max_time"),
    fit("--trainer.deterministic maybe", "deterministic"),
    fit("--trainer.fast_dev_run -1", "fast_dev_run"),
    fit("--trainer.callbacks NoSuchCallback", "NoSuchCallback"),
    fit("--trainer.callbacks+=EarlyStopping", "monitor"),
    fit("--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/los", "val/los")._replace(late=True),
    fit("--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.monitor val/los", "val/los")._replace(late=True),
    fit("--trainer.callbacks+=WeightGIF --trainer.callbacks.layer nowhere", "nowhere"),
    fit("--trainer.callbacks+=WeightGIF --trainer.callbacks.columns 0", "columns"),
    fit("--trainer.callbacks+=LRRangeFinder --trainer.callbacks.num_steps 3", "num_steps"),
    fit("--trainer.callbacks+=FeatureMaps --trainer.callbacks.layers [nowhere]", "nowhere"),
    fit("--trainer.callbacks+=ExactResume --trainer.callbacks.every_n_epochs 0", "every_n_epochs"),
    fit("--trainer.callbacks+=NonFiniteGuard --trainer.callbacks.action ignore", "action"),
    fit("--trainer.logger NoSuchLogger", "NoSuchLogger"),
    fit("--seed_everything x", "seed_everything"),
    fit("--seed_everything -1", "seed"),
    fit("--model Lenet", "'Lenet'"),
    fit("--model os.system", "os.system"),
    fit("--model.lr fast", "lr"),
    fit("--model.lr -0.1", "lr"),
    fit("--model.lr .inf", "lr"),
    fit("--model.momentum 2", "momentum"),
    fit("--model.optimizer null", "model.optimizer (=null)"),
    fit("--model.dropout 1.5", "dropout"),
    fit("--model.schedule cosin", "schedule"),
    fit("--model.warmup 3", "warmup"),
    fit("--model.hidden [0]", "hidden"),
    fit("--model.hidden 0.5", "hidden"),
    fit("--model.activation rellu", "activation"),
    fit("--model.mixup -1", "mixup"),
    fit("--model.label_smoothing 2", "label_smoothing"),
    fit("--data NoSuchData", "NoSuchData"),
    fit("--data.batch_size 0", "batch_size"),
    fit("--data.batch_size 1e3.5", "batch_size"),
    fit("--data.num_val -1", "num_val"),
    fit("--data.num_train 60000", "num_train"),
    fit("--data.augment [flop]", "flop"),
    fit("--data.augment [{crop: -1}]", "crop"),
    fit("--data.std [0,1,1]", "std"),
    fit("--data.albumentations absent.yaml", "absent.yaml"),
    fit("--run_dir file/x", "file/x"),
    fit("--run_dir folder", "folder"),
    fit("--test_after_fit perhaps", "test_after_fit"),
    fit("--lr 0.1", "--lr"),
    Mistake("fit --model LeNet", "data"),
    Mistake("fit --model LeNet --data CIFAR10DataModule --data.root folder", "folder"),
    Mistake(f"fit --model MLPRegressor {DATA}", "MLPRegressor"),
    # configurations
    config("", "bad.yaml"),
    config("# nothing\n", "bad.yaml"),
    config("just text", "bad.yaml"),
    config("- a\n- b\n", "bad.yaml"),
    config("model: [a", "bad.yaml"),
    config("\x00\x01", "bad.yaml"),
    config("trainer: 3", "trainer"),
    config("trainer: {max_epoch: 3}", "max_epoch"),
    config("trainer: {max_epochs: 3}\ntrainer: {max_epochs: 4}", "trainer"),
    config("model: {class_path: LeNett}", "LeNett"),
    config("model: {class_path: 3}", "class_path"),
    config("model: {init_args: {lr: [1, 2]}}", "lr"),
    config("optimiser: sgd", "optimiser"),
    config("trainer: {callbacks: {class_path: WeightGIF, init_args: {every_n_epoch: 2}}}", "every_n_epoch"),
    config("model: {class_path: LeNet, init_arg: {lr: 1}}", "init_arg"),
    config("data: {class_path: SyntheticDataModule, init_args: {num_train: lots}}", "num_train"),
    # our other commands
    Mistake(f"lr-find --model LeNet {DATA} --num_steps 5", "num_steps"),
    Mistake(f"lr-find --model LeNet {DATA} --out folder", "--out"),
    Mistake(f"lr-find --model LeNet {DATA} --out file/x", "--out"),
    Mistake(f"lr-find --model LeNet {DATA} --ckpt_path file", "--ckpt_path"),
    Mistake("explain --images folder", "--ckpt_path"),
    Mistake("explain --ckpt_path file --images folder", "--images"),
    study("", "bad.yaml"),
    study("base: {}\narms: {}", "base"),
    Mistake("study absent.yaml", "absent.yaml"),
]
WITHOUT_TORCH = [0, 1, 4, 12, 16]


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")


def check(mistake: Mistake, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Return the errors in the answer to a mistake."""
    if mistake.config is not None:
        Path("bad.yaml").write_text(mistake.config)
    capfd.readouterr()
    before = sorted(Path().rglob("*"))
    try:
        code: object = cli.main(mistake.args.split())
    except SystemExit as stop:
        code = f"exit {stop.code}"
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"[:300]
    said = [line for line in capfd.readouterr().err.splitlines() if "Seed set to" not in line]
    wrong = [] if code == 2 else [f"ended with {code}"]
    if mistake.named not in "\n".join(line for line in said if "error: " in line):
        wrong.append(f"does not name {mistake.named}")
    if len(said) > 3:
        wrong.append(f"{len(said)} lines")
    if any("Traceback" in line for line in said):
        wrong.append("a traceback")
    if len("".join(said)) > 900:
        wrong.append(f"{len(''.join(said))} characters")
    if left := [path for path in sorted(Path().rglob("*")) if path not in before]:
        wrong += [] if mistake.late else [f"left {left}"]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
    return [f"{mistake.args} {mistake.config or ''}: {'; '.join(wrong)}: {said}"] if wrong else []


def mistakes(table: list[Mistake], capfd: pytest.CaptureFixture[str]) -> None:
    wrong = [line for mistake in table for line in check(mistake, capfd)]
    with capfd.disabled():
        print(f"{len(table)} mistakes, {len(wrong)} with a bad message", *wrong, sep="\n")  # noqa: T201
    assert not wrong, wrong


def test_a_third_of_the_mistakes(capfd: pytest.CaptureFixture[str]) -> None:
    mistakes(TABLE[::3], capfd)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_mistakes(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(TABLE) >= 100
    mistakes(TABLE, capfd)


def test_mistakes_that_need_no_torch_do_not_import_it(tmp_path: Path) -> None:
    for i in WITHOUT_TORCH:
        args = [sys.executable, "-X", "importtime", "-m", "lightning_cifar", *TABLE[i].args.split()]
        done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ})
        said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        assert done.returncode == 2, said
        assert len(said) == 1, said
        assert TABLE[i].named in said[0]
        assert " torch\n" not in done.stderr
        assert " lightning.pytorch\n" not in done.stderr


@pytest.mark.slow
def test_in_less_than_two_seconds(tmp_path: Path) -> None:
    """Processor time is measured, because the machine may be shared."""
    seconds = []
    for i in WITHOUT_TORCH:
        before = os.times()
        begin = time.monotonic()
        args = [sys.executable, "-m", "lightning_cifar", *TABLE[i].args.split()]
        subprocess.run(args, check=False, cwd=tmp_path, capture_output=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.append((used, time.monotonic() - begin))
    print("processor and wall-clock seconds of each:", [f"{a:.2f} {b:.2f}" for a, b in seconds])  # noqa: T201
    assert max(used for used, _ in seconds) < 2
