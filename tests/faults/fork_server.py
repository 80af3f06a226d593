"""Runs commands in processes forked from a warm one, and kills them with SIGKILL.

A job is a line of JSON on stdin, its result a line on stdout. It is a separate program, so that no thread of the tests
is forked. All pictures except the GIF are a dot: they are not compared, and drawing them takes longer than training.
"""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from PIL import Image

from lightning_cifar.callbacks import lr_range_finder, weight_gif
from lightning_cifar.cli import main
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import LeNet
from lightning_cifar.plots import rendering

WARM_UP = """fit --model LeNet --model.optimizer adam --data SyntheticDataModule --data.num_train 32 --data.num_val 32
--trainer.max_epochs 1 --trainer.enable_progress_bar false --trainer.accelerator cpu --trainer.callbacks+=WeightGIF
--trainer.callbacks+=LRRangeFinder --trainer.callbacks.num_steps 10 --trainer.callbacks.num_sweeps 1"""
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}


def kill(delay: float = 0.0) -> None:
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)


class Watch:
    """Records the current phase of a run, and can kill it there.

    Args:
        note: File with the current phase, also after a kill.
        folder: Folder of the run, whose file operations are counted.
        aim: ``{"phase": name, "nth": n, "delay": s}`` kills s seconds after the n-th beginning of a phase,
            ``{"file": n, "delay": s}`` s seconds after the n-th file operation is requested, for 0 s before it is done.
    """

    def __init__(self, note: Path, folder: Path, aim: dict[str, Any]) -> None:
        self.note = os.open(note, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.folder, self.aim = str(folder.resolve()), aim
        self.counts: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.now = ["start"]
        self.num_files = 0
        self.say()

    def say(self) -> None:
        os.pwrite(self.note, self.now[-1].ljust(20).encode(), 0)

    def enter(self, phase: str) -> None:
        self.counts[phase] += 1
        self.now[0] = "between"
        self.now.append(phase)
        self.say()
        if self.aim.get("phase") == phase and self.aim["nth"] == self.counts[phase]:
            threading.Thread(target=kill, args=(self.aim["delay"],), daemon=True).start()

    def leave(self, phase: str, seconds: float) -> None:
        self.seconds[phase] += seconds
        self.now.pop()
        self.say()

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.enter(phase)
            begin = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self.leave(phase, time.monotonic() - begin)

        setattr(owner, name, wrapped)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in FILE_EVENTS or not isinstance(args[0], str | os.PathLike):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if not os.path.abspath(os.fspath(args[0])).startswith(self.folder):
            return
        self.num_files += 1
        if self.aim.get("file") == self.num_files:
            if self.aim["delay"]:
                threading.Thread(target=kill, args=(self.aim["delay"],), daemon=True).start()
            else:
                kill()


def stock(folder: str) -> int:
    """Train the same network on the same data with Lightning only, continued from its last checkpoint."""
    pl.seed_everything(0, verbose=False)
    model = LeNet(dropout=0.2, mixup=0.3, optimizer="adam", lr=0.003)
    data = SyntheticDataModule(num_train=96, num_val=32, batch_size=32)
    data.setup("fit")
    images, labels = next(iter(data.val_dataloader()))
    train = torch.utils.data.TensorDataset(images.repeat(3, 1, 1, 1), labels.repeat(3))
    loader = torch.utils.data.DataLoader(train, batch_size=32, shuffle=True)
    last = Path(folder) / "last.ckpt"
    trainer = pl.Trainer(
        max_epochs=4,
        logger=False,
        callbacks=[ModelCheckpoint(folder, "{epoch}", save_top_k=-1, every_n_epochs=1, save_last=True)],
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, loader, ckpt_path=last if last.is_file() else None, weights_only=True)
    torch.save(model.state_dict(), Path(folder) / "end.pt")
    return 0


def child(job: dict[str, Any], args: list[str], log: Path) -> None:
    """Run a command in the forked process, and exit."""
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        watch = Watch(Path(job["note"]), Path(job["folder"]), job.get("aim") or {})
        watch.wrap(pl.Trainer, "save_checkpoint", "save")
        watch.wrap(_EvaluationLoop, "run", "validation")
        watch.wrap(lr_range_finder, "sweep", "sweep")
        watch.wrap(weight_gif.WeightGIF, "_write", "gif")
        watch.wrap(pl.LightningModule, "optimizer_step", "step")
        sys.addaudithook(watch.audit)
        code = stock(args[1]) if args[0] == "stock" else main(args)
        if job.get("trace"):
            trace = {"counts": watch.counts, "seconds": watch.seconds, "files": watch.num_files}
            Path(job["trace"]).write_text(json.dumps(trace))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def do(job: dict[str, Any]) -> dict[str, Any]:
    """Fork one process for each command, wait, and kill those that still run after ``kill_after`` seconds."""
    begin = time.monotonic()
    pids = []
    for i, args in enumerate(job["runs"]):
        pid = os.fork()
        if pid == 0:
            child(job, args, Path(f"{job['log']}.{i}"))
        pids.append(pid)
    codes = []
    for pid in pids:
        found = 0
        while not found:
            found, status = os.waitpid(pid, os.WNOHANG)
            if not found:
                time.sleep(0.002)
                if time.monotonic() - begin > (job.get("kill_after") or 1000):
                    os.kill(pid, signal.SIGKILL)
        codes.append(os.waitstatus_to_exitcode(status))
    return {"codes": codes, "seconds": time.monotonic() - begin, "phase": Path(job["note"]).read_text().strip()}


def serve() -> None:
    """Warm up, then run jobs until stdin ends."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dot = io.BytesIO()
    Image.new("RGB", (2, 2)).save(dot, "png")
    rendering.to_png = lambda figure, dpi=120: dot.getvalue()
    args = [*WARM_UP.split(), "--run_dir", tempfile.mkdtemp() + "/run"]
    with redirect_stdout(sys.stderr):
        assert main(args) == 0
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(do(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
