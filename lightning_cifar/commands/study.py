"""The command ``lightning-cifar study``: run each arm with each seed, and compare the results."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cifar.commands.options import positive_int
from lightning_cifar.errors import CommandParser, UsageError, innermost
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.lock import FolderLock
from lightning_cifar.files.tables import to_csv
from lightning_cifar.studies.board import Board
from lightning_cifar.studies.jobs import (
    BARRIER,
    ENDED,
    Job,
    list_jobs,
    notes_on_looks,
    prepare,
    read_seen,
    state_of,
    write_about,
)
from lightning_cifar.studies.overrides import merge
from lightning_cifar.studies.spec import TRUNK, Study, read_study
from lightning_cifar.studies.tuning import tune
from lightning_cifar.studies.units import is_share, read_difference

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule


def main(args: Sequence[str]) -> int:
    """Run the command; return 0 if all runs ended, 1 if one failed.

    Raises:
        UsageError: If the study, an arm or an option is wrong, or the data are not available, before the first run.
    """
    options = _parse(args)
    study = read_study(Path(options.study), seeds=options.seeds, settings=options.set)
    num_jobs, threads = options.jobs or "as many as fit", options.threads
    folder = Path(options.out or Path("runs") / "studies" / study.name)
    print(
        f"{study.name}: {len(study.arms)} arms x {len(study.seeds)} seeds, {num_jobs} at a time, {threads} threads each"
        + (f", after a trunk of {study.trunk_epochs} epochs per seed" if study.trunk_epochs else "")
        + (f", after tuning with {len(study.tune.seeds)} other seeds" if study.tune else "")
    )
    modules = _check_arms(study)
    if options.plan:
        return _print_plan(study, options, folder)
    planned = {job.arm for job in list_jobs(study, folder, threads=threads) if state_of(job) not in ENDED}
    if options.address is None:  # other machines have their own data
        _prepare_data(study, {arm: module for arm, module in modules.items() if arm in planned})
    try:
        jobs = prepare(study, folder, threads=threads)
    except OSError as error:
        raise UsageError(f"{error.strerror or error}: pass another folder as --out.") from error
    with FolderLock(folder, busy=f"a study is running in {folder}: wait until it ends, or pass another --out."):
        command = shlex.join(["lightning-cifar", "study", *args])
        write_about(study, folder, command)
        if study.tune is not None:
            chosen = tune(study, folder, threads, lambda todo: _run_all(options, todo, study))
            jobs = prepare(study, folder, threads=threads, chosen=chosen)
            for arm, settings in chosen.items():
                print(f"tuned {arm}: {', '.join(f'{key} {value}' for key, value in settings.items())}")
        _run_all(options, jobs, study)
    if all(state_of(job) in ENDED for job in jobs):
        write_about(study, folder, command, seen=True)
    return _write_results(study, jobs, folder)


def _parse(args: Sequence[str]) -> argparse.Namespace:
    options = _parser().parse_args(args)
    for name in ("detect", "sd"):
        if getattr(options, name) is not None and not options.plan:
            raise UsageError(f"--{name} is an option of a plan: add --plan.")
    if options.executor == "ray":
        from lightning_cifar.studies.ray_executor import import_ray, read_resources

        options.resources = read_resources("{}" if options.resources is None else options.resources)
        import_ray(options.address)
        options.threads = options.threads or max(1, int(options.resources.cpu))
        return options
    for name in ("address", "resources"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} needs Ray: add --executor ray.")
    options.jobs = options.jobs or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options.threads = options.threads or max(1, cores // options.jobs)
    return options


def _parser() -> CommandParser:
    parser = CommandParser("study", description="Run or continue the arms of a study with each seed, and compare them.")
    add = parser.add_argument
    add("study", help="a YAML file, such as configs/studies/lr_regimes.yaml")
    add("--seeds", type=positive_int, help="number of seeds (default: that of the study)")
    add("--set", type=_setting, action="append", default=[], metavar="KEY=VALUE", help="such as data.root=/my/data")
    add("--plan", action="store_true", help="print how many seeds are needed, from the finished runs or --sd, and stop")
    add("--detect", metavar="SIZE", help="difference to plan for: 0.5 are 0.5 points of accuracy (default: the margin)")
    add("--sd", metavar="SIZE", help="standard deviation of the difference between two arms over seeds")
    add("--jobs", type=positive_int, help="runs at a time (default 1; with Ray, as many as fit)")
    add("--threads", type=positive_int, help="threads of each run (default: number of cores / jobs)")
    add("--out", help="folder of the study (default: runs/studies/NAME)")
    add("--executor", choices=("local", "ray"), default="local", help="(default %(default)s)")
    add("--address", help="Ray cluster, HOST:PORT or auto (default: start Ray on this machine)")
    add("--resources", help="""resources of each run on Ray, such as '{"cpu": 1, "gpu": 0.25}' (default: one core)""")
    return parser


def _run_all(options: argparse.Namespace, jobs: Sequence[Job], study: Study) -> None:
    """Run the jobs that have not ended."""
    board = Board(jobs, study)
    todo = [job for job in jobs if state_of(job) not in ENDED]
    if len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are done and kept")
    try:
        _run(options, todo, board)
    except KeyboardInterrupt:
        done = sum(state_of(job) in ENDED for job in jobs)
        print(f"\nstopped, {done} of {len(jobs)} runs are done; to continue, repeat the command", file=sys.stderr)
        raise
    finally:
        board.close()


def _run(options: argparse.Namespace, todo: Sequence[Job], board: Board) -> None:
    if options.executor == "ray":
        from lightning_cifar.studies.ray_executor import run_on_ray

        run_on_ray(todo, options.jobs, board.hear, address=options.address, resources=options.resources)
    else:
        from lightning_cifar.studies.local import run_locally

        run_locally(todo, options.jobs, board.hear)


def _print_plan(study: Study, options: argparse.Namespace, folder: Path) -> int:
    """Print how many seeds are needed; start nothing."""
    from lightning_cifar.analysis.comparisons import Rules
    from lightning_cifar.studies.report import results
    from lightning_cifar.studies.report.planning import Spread, plan_lines, spread_of

    def read(name: str) -> float | None:
        text = getattr(options, name)
        if text is None:
            return None
        unit = " points" if is_share(study.metric) and "point" not in text else ""  # the unit of every table
        return read_difference(text + unit, study.metric, f"--{name}")

    detect = read("detect") or study.margin
    if detect is None:
        raise UsageError("--plan needs the difference that matters: add --detect 0.5, or a margin to the study file.")
    jobs = list_jobs(study, folder, threads=1)
    runs = [results.read_run(job) for job in jobs if job.arm != TRUNK]
    found = results.differences(runs, list(study.arms), study.metric, study.baseline, Rules(study.compare))
    given = read("sd")
    spread = spread_of(results.finals(runs, list(study.arms), study.metric), found) if given is None else None
    spread = Spread(given, given, 0) if given is not None else spread
    if not found or spread is None:
        raise UsageError(
            "--plan needs at least two arms."
            if not found
            else f"{folder} has no two finished seeds as a pilot: run the study with --seeds 3, or add --sd."
        )
    seconds = results.mean_of([run.seconds for run in runs if run.state == "done"])
    sizes = {"comparisons": len(found), "looks": study.looks, "arms": len(study.arms), "jobs": options.jobs or 1}
    print("\n".join(plan_lines(spread, detect, metric=study.metric, seconds=seconds, **sizes)))
    return 0


def _setting(text: str) -> tuple[str, object]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} must have the form KEY=VALUE, such as data.root=/my/data")
    return key, yaml.safe_load(value)


def _check_arms(study: Study) -> dict[str, LightningDataModule]:
    """Check the configuration of each arm before the first run; return the data module of each arm."""
    import yaml

    from lightning_cifar.runs.arguments import Arguments
    from lightning_cifar.runs.build import build

    modules = {}
    first = study.tune.combinations()[0] if study.tune else {}
    for name, config in study.arms.items():
        config = merge(config, first, f"arm {name}")
        try:
            arguments = Arguments("fit", ("--config", yaml.safe_dump(config), "--run_dir", os.devnull))
            modules[name] = build(arguments).datamodule
        except (UsageError, ValueError, TypeError) as error:
            raise UsageError(f"arm {name}: {innermost(error)}") from error
    return modules


def _prepare_data(study: Study, modules: Mapping[str, LightningDataModule]) -> None:
    """Prepare the data before the first run, so that they are downloaded, or reported as missing, only once."""
    by_data = {json.dumps(study.arms[arm]["data"], sort_keys=True, default=str): arm for arm in modules}
    for arm in by_data.values():
        try:
            modules[arm].prepare_data()
        except (OSError, ValueError) as error:
            raise UsageError(_as_settings(str(error))) from error


def _as_settings(message: str) -> str:
    """Replace the options of a run in a message by those of a study.

    >>> _as_settings("pass --data.download true, or --data SyntheticDataModule")
    'pass --set data.download=true, or --set data.class_path=SyntheticDataModule'
    """
    message = re.sub(r"--data\.(\w+) (\w+)", r"--set data.\1=\2", message)
    return re.sub(r"--data (\w+)", r"--set data.class_path=\1", message)


def _write_results(study: Study, jobs: Sequence[Job], folder: Path) -> int:
    """Write and print the results; return the exit code."""
    from lightning_cifar.analysis.comparisons import Rules
    from lightning_cifar.studies.report import results
    from lightning_cifar.studies.report.means import write_means
    from lightning_cifar.studies.report.planning import advice

    if study.metric == BARRIER:
        from lightning_cifar.commands.surface import write_barriers

        write_barriers(jobs, study.baseline)
    every = [results.read_run(job) for job in jobs]
    runs, trunks = ([run for run in every if (run.arm == TRUNK) == is_trunk] for is_trunk in (False, True))
    write_means(folder, runs)
    arms = list(study.arms)
    rows = results.table(runs, arms, study.metric, study.mode, study.target)
    seen = read_seen(folder)
    rules = Rules(study.compare, study.margin, max(study.looks, len(seen)))
    found = results.differences(runs, arms, study.metric, study.baseline, rules)
    text = results.markdown(rows, found, study.metric, study.mode, study.target)
    notes = [f"{line[0].upper()}{line[1:]}." for line in notes_on_looks(seen, study.looks)]
    notes += advice(runs, arms, study.metric, rules, found)
    notes += filter(None, [results.trunk_text(trunks, runs, study.trunk_epochs)])
    text += "".join(f"- {line}\n" for line in notes)
    write_atomically(folder / "results.md", text.encode())
    table = to_csv(results.CSV_HEADER, results.csv_rows(runs, study.metric, study.mode, study.target))
    write_atomically(folder / "results.csv", table)
    failed = [run for run in every if run.state not in ENDED]
    if any(run.state in ENDED for run in runs):
        print(f"\n{study.question or study.name}\n\n{text}")
    else:
        print("\nno run has ended: there is nothing to compare\n")
    by_error: dict[str, list[results.RunResult]] = {}
    for run in failed:
        by_error.setdefault(run.error or "the process ended without an error message", []).append(run)
    for error, (run, *others) in list(by_error.items())[:3]:
        more = f" and {len(others)} more" if others else ""
        print(f"failed: {run.arm}, seed {run.seed}{more}: {error} (log: {run.folder}.log)", file=sys.stderr)
    print(f"results: {folder}/results.md and results.csv; lightning-cifar report {shlex.quote(str(folder))}")
    return 1 if failed else 0
