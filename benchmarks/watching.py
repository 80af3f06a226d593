"""Processor time in the hooks of callbacks that show a training, relative to the whole command.

    python benchmarks/watching.py [--config configs/lenet.yaml] [OPTIONS OF FIT]

Trains (default: configs/demo.yaml) with the default callbacks and four overlays, and prints the seconds and
share of each callback, and the size of the event files. The time in a hook includes that of the hooks called in it.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, LearningRateMonitor

from lightning_cifar import callbacks
from lightning_cifar.cli import main
from lightning_cifar.runs.board_record import BoardRecord

DEFAULT: tuple[type[Callback], ...] = (
    *(callbacks.ClassAccuracy, callbacks.SampleGrid, callbacks.LayerTable, callbacks.LossCurves),
    *(callbacks.Throughput, LearningRateMonitor, BoardRecord),
)
OVERLAYS: dict[type[Callback], str] = {
    callbacks.WeightHistograms: "weight_histograms",
    callbacks.EmbeddingProjector: "embedding_projector",
    callbacks.Sharpness: "sharpness",
    callbacks.WeightTrajectory: "weight_trajectory",
}
SECONDS: dict[str, float] = defaultdict(float)


def timed(hook: Callable[..., Any], owner: str) -> Callable[..., Any]:
    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return hook(*args, **kwargs)
        finally:
            SECONDS[owner] += time.process_time() - start

    return call


def watch(kind: type[Callback]) -> None:
    """Measure all hooks of a class that differ from those of Lightning's base class."""
    for name in dir(Callback):
        hook = getattr(kind, name)
        if name.startswith(("on_", "setup", "teardown")) and hook is not getattr(Callback, name):
            setattr(kind, name, timed(hook, kind.__name__))


def run(args: list[str]) -> None:
    for kind in (*DEFAULT, *OVERLAYS):
        watch(kind)
    given = args if "--config" in args else ["--config", "configs/demo.yaml", *args]
    more = [word for name in OVERLAYS.values() for word in ("--config", f"configs/callbacks/{name}.yaml")]
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        main(["fit", *given, *more, "--run_dir", f"{folder}/run"])
        total = time.process_time() - start - sum(SECONDS[kind.__name__] for kind in OVERLAYS)
        size = sum(path.stat().st_size for path in Path(folder, "run").glob("events.out.tfevents.*"))
    for title, kinds in (("by default", DEFAULT), ("overlays", OVERLAYS)):
        for kind in kinds:
            print(f"{kind.__name__:20} {SECONDS[kind.__name__]:7.3f} s {SECONDS[kind.__name__] / total:8.2%}")
        print(f"{title:20} {sum(SECONDS[kind.__name__] for kind in kinds) / total:18.2%}\n")
    print(f"training {total:.1f} s, event files {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(sys.argv[1:])
