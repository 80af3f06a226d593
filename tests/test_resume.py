"""``fit --resume FOLDER`` ends with the same bits as an uninterrupted run."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from lightning_cifar.cli import main
from lightning_cifar.errors import UsageError
from lightning_cifar.files.lock import FolderLock
from lightning_cifar.models import LeNet

ARGS = """fit --model LeNet --model.mixup 0.3 --model.optimizer adam --model.lr 0.003 --model.schedule cosine
--data SyntheticDataModule --data.num_train 96 --data.num_val 32 --data.batch_size 32 --trainer.max_epochs 4
--trainer.log_every_n_steps 1 --trainer.enable_progress_bar false --trainer.accelerator cpu""".split()  # noqa: SIM905

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_CIFAR_TRACEBACK", "1")


class PowerCutError(Exception):
    pass


def break_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Let the given training step of the next run fail."""
    count = 0
    step = LeNet.training_step

    def training_step(self: LeNet, *args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        if count == call:
            raise PowerCutError
        return step(self, *args, **kwargs)

    monkeypatch.setattr(LeNet, "training_step", training_step)


def run(*args: str) -> None:
    assert main([*ARGS, *args] if args[0] != "--resume" else ["fit", *args]) == 0


def table(folder: Path) -> list[list[str]]:
    """metrics.csv without the column that is a time."""
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    skip = rows[0].index("throughput")
    return [[cell for i, cell in enumerate(row) if i != skip] for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    held: dict[str, torch.Tensor] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return held


@pytest.mark.parametrize("calls", [(2,), (4,), (8, 3)])
def test_bit_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: tuple[int, ...]) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run("--run_dir", str(whole))
    for i, call in enumerate(calls):
        with monkeypatch.context() as patch:
            break_at(patch, call)
            with pytest.raises(PowerCutError):
                main([*ARGS, "--run_dir", str(broken)] if i == 0 else ["fit", "--resume", str(broken)])
    assert not (broken / "result.json").exists()
    run("--resume", str(broken))
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(broken)[name]), name
    assert table(whole) == table(broken)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, broken)]
    for result in results:
        result["metrics"].pop("throughput")
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["best"] == results[1]["best"]


def test_options_override_the_interrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        break_at(patch, 5)
        with pytest.raises(PowerCutError):
            main([*ARGS, "--run_dir", str(folder)])
    run("--resume", str(folder), "--model.lr", "0.001", "--trainer.max_epochs", "2")
    result = json.loads((folder / "result.json").read_text())
    assert result["epochs"] == 2
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]["lr"] == 0.001


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"

    def error(*args: str) -> str:
        assert main(list(args)) == 2
        return capsys.readouterr().err

    monkeypatch.delenv("LIGHTNING_CIFAR_TRACEBACK")
    assert "is not the folder of a run" in error("fit", "--resume", str(folder))
    run("--run_dir", str(folder), "--trainer.max_epochs", "1")
    assert "to continue the training, add --trainer.max_epochs" in error("fit", "--resume", str(folder))
    assert "leave --run_dir out" in error("fit", "--resume", str(folder), "--run_dir", "x")
    assert "--resume is an option of fit" in error("test", "--resume", str(folder))
    assert "--resume needs the folder" in error("fit", "--resume")
    lock = FolderLock(folder)
    assert "another run is using" in error("fit", "--resume", str(folder), "--trainer.max_epochs", "3")
    lock.release()
    run("--resume", str(folder), "--trainer.max_epochs", "2")
    for path in (folder / "checkpoints").glob("resume.*"):
        path.unlink()
    (folder / "result.json").unlink()
    assert "has no checkpoints/resume.ckpt yet" in error("fit", "--resume", str(folder))


def test_the_newest_undamaged_checkpoint_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run("--run_dir", str(whole))
    with monkeypatch.context() as patch:
        break_at(patch, 8)
        with pytest.raises(PowerCutError):
            main([*ARGS, "--run_dir", str(broken)])
    newest = broken / "checkpoints/resume.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    (broken / ".metrics.csv.77.part").write_text("left by a kill")
    run("--resume", str(broken))
    assert f"{newest} is damaged: its SHA-256 differs from" in capsys.readouterr().err
    assert all(torch.equal(value, weights(broken)[name]) for name, value in weights(whole).items())
    assert table(whole) == table(broken)
    assert not list(broken.rglob("*.part"))
    monkeypatch.delenv("LIGHTNING_CIFAR_TRACEBACK")
    (broken / "result.json").unlink()
    for path in (broken / "checkpoints").glob("resume*.ckpt"):
        path.write_bytes(b"x")
    assert main(["fit", "--resume", str(broken)]) == 2
    assert "Start again with --config" in capsys.readouterr().err


def test_a_failed_resume_of_a_run_that_ended_keeps_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    run("--run_dir", str(folder), "--trainer.max_epochs", "1")
    result = (folder / "result.json").read_bytes()
    monkeypatch.delenv("LIGHTNING_CIFAR_TRACEBACK")
    more = ["--trainer.max_epochs", "2", "--trainer.callbacks+=WeightGIF", "--trainer.callbacks.layer", "nothing"]
    assert main(["fit", "--resume", str(folder), *more]) == 2
    assert "nothing" in capsys.readouterr().err
    assert (folder / "result.json").read_bytes() == result
    monkeypatch.setenv("LIGHTNING_CIFAR_TRACEBACK", "1")
    with monkeypatch.context() as patch:
        break_at(patch, 2)
        with pytest.raises(PowerCutError):
            main(["fit", "--resume", str(folder), *more[:2]])
    assert not (folder / "result.json").exists(), "a run that broke has no result"


def test_a_damaged_digest_is_named_and_the_previous_checkpoint_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        break_at(patch, 8)
        with pytest.raises(PowerCutError):
            main([*ARGS, "--run_dir", str(folder)])
    digest = folder / "checkpoints/resume.ckpt.sha256"
    digest.write_bytes(b"\xff" + digest.read_bytes()[1:])
    run("--resume", str(folder))
    said = capsys.readouterr().err
    assert "resume.ckpt is damaged: its SHA-256 differs from resume.ckpt.sha256. Continuing from resume.prev" in said
    assert (folder / "result.json").is_file()


def test_a_shared_lock_needs_no_write_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork of a run in a read-only folder only finds out whether the run has ended."""
    FolderLock(tmp_path).release()
    flags: list[int] = []
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, flag, *mode: flags.append(flag) or opened(path, flag, *mode))
    FolderLock(tmp_path, shared=True).release()
    assert [flag & os.O_ACCMODE for flag in flags] == [os.O_RDONLY]


def test_a_forked_process_does_not_hold_the_folder(tmp_path: Path) -> None:
    """The workers of a loader live on for seconds when their run is killed."""
    lock = FolderLock(tmp_path)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    with pytest.raises(UsageError, match="another run is using"):
        FolderLock(tmp_path)  # the child let go, not we
    lock.release()
    FolderLock(tmp_path).release()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)


def test_ctrl_c_prints_how_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        step = LeNet.training_step
        patch.setattr(
            LeNet, "training_step", lambda self, *args: interrupted() if self.current_epoch else step(self, *args)
        )
        assert main([*ARGS, "--run_dir", str(tmp_path / "run")]) == 130
    hint = f"lightning-cifar: interrupted: continue with: lightning-cifar fit --resume {tmp_path / 'run'}"
    assert capsys.readouterr().err.splitlines()[-1] == hint
    run("--resume", str(tmp_path / "run"))
