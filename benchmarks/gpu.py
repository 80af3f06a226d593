"""All measurements of docs/gpu.md on this machine, in order of value, and the page itself.

    python benchmarks/gpu.py [--device cuda] [--out runs/gpu] [--page docs/gpu.md] [--parts steps resume ...] [--tiny]
                             [--data data] [--unofficial] [--airbench FILE]

Each part is a process of less than ten minutes with a file of its own in the folder ``--out``, which also holds the
runs: a repeated command continues with the parts that have not ended, and the page is written anew after each part. A
part that fails is run again by the next command; a training that was stopped is resumed. ``--tiny`` runs everything
with few images and steps, to test the commands themselves. ``--parts`` without a name only writes the page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

LIMIT = 600  # seconds of a part
BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent


class Part(NamedTuple):
    name: str
    title: str
    target: str
    command: str
    """Arguments of Python; {device}, {data}, {verify}, {airbench}, {out} and {run}, a folder, are replaced."""
    tiny: str
    """Further arguments for ``--tiny``, which replace earlier ones."""


NO_FILE = "FILE"
INTRODUCTION = """# GPU measurements

This page is written by `make gpu`, not by hand.

`make gpu` runs the parts of this page in this order, each in a process of less than ten minutes, and writes the page
anew after each. A repeated command continues with the parts that have not ended; a training that does not fit into ten
minutes is resumed. CIFAR-10 must be in `data/`. `make gpu GPU="--parts steps resume"` selects parts, and
`make gpu GPU="--airbench FILE"` includes airbench94, a script of `KellerJordan/cifar10-airbench`.
`python benchmarks/gpu.py --device cpu --tiny` runs everything with few images on a CPU.
`configs/reference/dilated_net_augmented.yaml` needs a CPU for its augmentation and is not part of the command.
"""

SMALL_RUN = (
    "--data SyntheticDataModule --data.num_train 64 --data.num_val 16 --data.num_test 16 --data.batch_size 32 "
    "--data.augment [] --trainer.max_epochs 1 --compile false"
)
OWN = "benchmarks/gpu.py --device {device} --out {out} --run"
FIT = "--data.root {data} {verify} --trainer.accelerator {device} --test_after_fit true --run_dir {run}"


def fits(name: str, title: str, target: str, config: str, seeds: Iterable[int], more: str = "") -> list[Part]:
    return [
        Part(
            f"{name}-{seed}",
            f"{title}, seed {seed}",
            target,
            f"-m lightning_cifar fit --config configs/{config} {FIT} --seed_everything {seed}{more}",
            SMALL_RUN,
        )
        for seed in seeds
    ]


PARTS = [
    Part("steps", "Steps of all models without a wait for the device", "none", f"{OWN} steps", ""),
    Part("resume", "A killed and resumed run", "the bits of the whole run", f"{OWN} resume", ""),
    Part(
        "input",
        "Input pipeline with all data on the device",
        "at most 2 % of a DilatedNet step",
        "benchmarks/input_pipeline.py --device {device}",
        "--rounds 1 --batch_sizes 128 --images 256",
    ),
    *(
        Part(
            f"throughput-{model}{name}",
            f"Throughput of {model}{title}, against a bare loop",
            "at least 0.95x of the bare loop",
            f"benchmarks/training_throughput.py --device {{device}} --models {model}{more}",
            f"--rounds 1 --batches 1{more and ' --compile aot_eager'}",  # without the compiler for C++
        )
        for model in ("LeNet", "DilatedNet")
        for name, title, more in (
            ("", "", ""),
            ("-compiled", ", compiled", " --compile"),
            ("-cudagraphs", ", compiled with CUDA graphs", " --compile cudagraphs"),
        )
    ),
    Part(
        "occlusion",
        "Occlusion maps against captum",
        "50x captum's default",
        "benchmarks/occlusion.py --data {data} --device {device}",
        "--rounds 1 --images 1 --together 1 --window 16 --stride 16 --networks dilated",
    ),
    Part(
        "lockstep",
        "Stacked members against separate trainings",
        "above 1x",
        "benchmarks/lockstep.py --device {device}",
        "--rounds 1 --cases toys --epochs 2",
    ),
    Part(
        "transfer",
        "Cached features and no_grad",
        "6x and 1.8x",
        "benchmarks/transfer.py --parts cache graph --data-root {data} --device {device}",
        "--rounds 1 --images 8 --epochs 2 --batch-size 4 --input-size 32 --steps 1 --graph-batch 2",
    ),
    *fits(
        "dilated",
        "DilatedNet, recipe of this package, 200 epochs",
        "91.5 %",
        "dilated_net.yaml",
        range(5),
        " --trainer.max_epochs 200",
    ),
    Part("airbench", "airbench's published code", "94 % on average", "{airbench}", ""),
    *fits("speed", "Time to 94 % under a plain Trainer", "94 %", "speed_94.yaml", range(5), " --compile true"),
    *fits("best", "At most 187,418 parameters", "95.2 %", "best_under_187k.yaml", range(3)),
    *fits("reference", "DilatedNet, published recipe", "84.23 %", "reference/dilated_net.yaml", range(3)),
    *fits("reference-191k", "DilatedNet 191k, published recipe", "76.67 %", "reference/dilated_net_191k.yaml", [0]),
]


# ---------------------------------------------------------------- correctness on the device


def check_steps(device: str, out: Path) -> None:
    """Train each model with each optimizer; CUDA itself reports a wait within a step that is not logged."""
    import lightning.pytorch as pl
    import torch

    from lightning_cifar import models
    from lightning_cifar.callbacks import EMA, NonFiniteGuard
    from lightning_cifar.data import SyntheticDataModule

    class NoWaits(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            # The first step makes the states of the optimizer, the last one is a logging point.
            if device == "cuda" and trainer.global_step in (2, 3):
                torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, *_: Any) -> None:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    augment = ["flip", {"crop": 4}, {"cutout": {"size": 8, "p": 0.5}}, "trivial_augment"]
    cases = [(models.LeNet, {"optimizer": name}) for name in ("sgd", "adam", "adamw", "rmsprop", "muon")]
    cases += [(models.LeNet, {"mixup": 0.2, "cutmix": 1.0}), (models.DilatedNet, {}), (models.ResNetCIFAR, {})]
    for make, settings in cases:
        trainer = pl.Trainer(
            accelerator=device,
            devices=1,
            max_epochs=1,
            log_every_n_steps=5,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=1,
            callbacks=[NoWaits(), EMA(), NonFiniteGuard()],
        )
        data = SyntheticDataModule(num_train=40, num_val=8, num_test=1, batch_size=8, augment=augment)
        trainer.fit(make(lr=0.01, **settings), data)
        print(f"{make.__name__} {settings}: train/loss {float(trainer.callback_metrics['train/loss']):.4f}")


def check_resume(device: str, out: Path) -> None:
    """Kill a deterministic run in the middle, resume it, and compare its last checkpoint with that of a whole run."""
    import torch

    def start(*args: str) -> subprocess.Popen[bytes]:
        base = ["fit", "--trainer.accelerator", device, "--trainer.deterministic", "true", "--seed_everything", "0"]
        base += ["--model", "LeNet", "--model.lr", "0.05", "--model.dropout", "0.1", "--data", "SyntheticDataModule"]
        base += ["--data.num_train", "256", "--data.num_val", "16", "--data.num_test", "16"]
        base += ["--trainer.max_epochs", "6", "--trainer.log_every_n_steps", "1"]
        environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        command = [sys.executable, "-m", "lightning_cifar", *(args or base)]
        return subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.DEVNULL)

    weights = []
    for name in ("whole", "killed"):
        work = out / f"resume-{name}-{time.time_ns()}"
        work.mkdir(parents=True)
        process = start()
        while name == "killed" and process.poll() is None:
            if list(work.rglob("last.ckpt")):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        code = process.wait()
        (last,) = work.rglob("last.ckpt")
        if name == "killed":
            epoch = torch.load(last, weights_only=True, map_location="cpu")["epoch"]
            print(f"ended with {code} after epoch {epoch + 1} of 6; resumed")
            run = next(path for path in (last, *last.parents) if (path / "config.yaml").is_file())
            code = start("fit", "--resume", str(run)).wait()
        if code:
            raise SystemExit(f"the {name} run ended with {code}")
        weights.append(torch.load(last, weights_only=True, map_location="cpu")["state_dict"])
    different = [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])]
    if different:
        raise SystemExit(f"different after the resume: {', '.join(different)}")
    print(f"{len(weights[0])} tensors of the last checkpoint are bit-identical")


CHECKS: dict[str, Callable[[str, Path], None]] = {"steps": check_steps, "resume": check_resume}


# ---------------------------------------------------------------- the parts and the page


def machine(device: str) -> str:
    """One line on the device and the versions."""
    import lightning
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return f"{device} ({name}), Python {platform.python_version()}, torch {torch.__version__}, lightning " + (
        f"{lightning.__version__}"
    )


def command_of(part: Part, options: argparse.Namespace) -> list[str]:
    text = f"{part.command} "
    if options.tiny:  # without the real data
        text = re.sub(r"--data(.root|-root)? {data} ", "", text) + part.tiny
    places = {name: getattr(options, name) for name in ("device", "data", "out", "airbench")}
    verify = "--data.verify false" if options.unofficial and not options.tiny else ""
    return shlex.split(text.format(**places, verify=verify, run=f"{options.out}/{part.name}"))


def measure(part: Part, options: argparse.Namespace, spent: float = 0.0) -> dict[str, Any]:
    """Run a part in a new process and return its record. A training that was stopped after ``spent`` s is resumed."""
    from lightning_cifar.runs.resume import can_resume

    words = command_of(part, options)
    record: dict[str, Any] = {"command": f"python {shlex.join(words)}", "machine": machine(options.device)}
    if part.name == "airbench" and options.airbench == NO_FILE:
        return {**record, "code": -1, "seconds": 0.0, "output": f"not run: pass --airbench {NO_FILE}"}
    run = ROOT / options.out / part.name
    if can_resume(run) and not (run / "result.json").exists():
        words = ["-m", "lightning_cifar", "fit", "--resume", str(run)]
    else:
        shutil.rmtree(run, ignore_errors=True)
        spent = 0.0
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run(
            [sys.executable, *words],
            check=False,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        code, output = done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr[-2000:]
    except subprocess.TimeoutExpired:
        code, output = -1, f"stopped after {LIMIT} seconds"
    return {**record, "code": code, "seconds": spent + time.perf_counter() - start, "output": output}


def page_of(records: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """Return docs/gpu.md."""
    measured = [part for part in PARTS if records.get(part.name, {"code": -1})["code"] == 0]
    commands = []
    lines = [INTRODUCTION]
    if measured:
        lines += [f"{len(measured)} of {len(PARTS)} parts are measured, on {options.device}.", ""]
    else:
        lines += ["**Nothing has been measured on a GPU yet.**", ""]
    lines += ["| part | measurement | target | state |", "|---|---|---|---|"]

    def state(part: Part) -> str:
        if part in measured:
            return f"measured in {records[part.name]['seconds']:.0f} s"
        output = records.get(part.name, {"output": "not run yet"})["output"].strip().splitlines() or ["no output"]
        return output[-1].replace("|", "/")[:200]

    # Seeds in the same state are one row.
    for (title, text), group in groupby(PARTS, key=lambda part: (part.title.partition(", seed")[0], state(part))):
        parts = list(group)
        names = " to ".join(f"`{part.name}`" for part in dict.fromkeys((parts[0], parts[-1])))
        lines.append(f"| {names} | {title} | {parts[0].target} | {text} |")
        if parts[0] not in measured:
            commands.append(f"python {shlex.join(command_of(parts[0], options))}")
    if commands:
        lines += ["", "Commands of the missing parts, with the first seed:", "", "```text", *commands, "```"]
    for part in measured:
        record = records[part.name]
        lines += ["", f"## {part.title}", ""]
        lines += [f"Target: {part.target}. {record['seconds']:.0f} s on {record['machine']}.", ""]
        lines += ["```text", f"$ {record['command']}", *record["output"].strip().splitlines()[-40:], "```"]
    return "\n".join(lines) + "\n"


def parse(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, help="folder of the records and runs (default: runs/gpu)")
    parser.add_argument("--page", type=Path, help="default: docs/gpu.md; with --tiny or on a CPU, gpu.md in --out")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of CIFAR-10")
    parser.add_argument("--unofficial", action="store_true", help="read a copy without the official checksums")
    parser.add_argument("--airbench", default=NO_FILE, help="file of airbench94 from KellerJordan/cifar10-airbench")
    parser.add_argument("--parts", nargs="*", choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument("--tiny", action="store_true", help="few images and steps")
    parser.add_argument("--run", choices=CHECKS, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    is_trial = options.tiny or options.device == "cpu"
    out = options.out or ROOT / "runs" / ("gpu" if not is_trial else f"gpu-{options.device}{'-tiny' * options.tiny}")
    options.page = options.page or (out / "gpu.md" if is_trial else ROOT / "docs" / "gpu.md")
    options.out, options.data = in_repository(out), in_repository(options.data)
    if options.airbench != NO_FILE:
        options.airbench = in_repository(Path(options.airbench))
    return options


def in_repository(path: Path) -> Path:
    """Return the path relative to the repository, in which all commands run, if it is inside."""
    path = Path(os.path.abspath(path))  # links are kept
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def main(args: list[str] | None = None) -> int:
    options = parse(args)
    out = ROOT / options.out
    if options.run:
        CHECKS[options.run](options.device, out)
        return 0
    out.mkdir(parents=True, exist_ok=True)
    files = {part.name: out / f"{part.name}.json" for part in PARTS}
    records = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items() if path.is_file()}
    for part in PARTS:
        record = records.get(part.name, {"code": -1, "seconds": 0.0})
        if record["code"] != 0 and (options.parts is None or part.name in options.parts):
            print(f"{part.name}: {part.title} ...", flush=True)
            records[part.name] = record = measure(part, options, record["seconds"])
            files[part.name].write_text(json.dumps(record, indent=1), encoding="utf-8")
            print(f"  {record['seconds']:.0f} s, ended with {record['code']}", flush=True)
            options.page.write_text(page_of(records, options), encoding="utf-8")
    options.page.write_text(page_of(records, options), encoding="utf-8")
    return int(any(record["code"] != 0 for name, record in records.items() if name != "airbench"))


if __name__ == "__main__":
    sys.exit(main())
