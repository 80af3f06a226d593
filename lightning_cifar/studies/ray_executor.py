"""Runs on a Ray cluster, or on a Ray that is started here for one study: a task each, in a fresh process.

Plain tasks and not Ray Tune. A study has neither a search nor a schedule of trials, so retries are all that Tune would
give it, for a second record of what is done beside our own (which cannot be extended by seeds or arms), a second folder
of results, and three times the packages. Retries are ours too: Ray's own have no bound where a run was ended for want
of memory.
"""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_cifar.errors import UsageError, did_you_mean, one_line
from lightning_cifar.runs.signals import terminations_raised
from lightning_cifar.studies.jobs import Job, Progress, State, redirect_output, state_of
from lightning_cifar.studies.local import Watcher

if TYPE_CHECKING:
    from ray import ObjectRef

Actor = Any  # a handle of Ray's: it has the methods of the class at run time only
RETRIES = 3  # of one run within one study; the same command goes on after that
EXAMPLE = """--resources '{"cpu": 1, "gpu": 0.25}'"""


@dataclass(frozen=True)
class Resources:
    """What a run takes of a node: cores and GPUs, or shares of one."""

    cpu: float = 1
    gpu: float = 0


def read_resources(text: str) -> Resources:
    """Read ``{"cpu": 1, "gpu": 0.25}``; what is left out is one core and no GPU.

    Raises:
        UsageError: It is not JSON, names something else, or asks for what cannot be.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--resources (={text}) is not JSON ({one_line(error)}): write it like {EXAMPLE}.") from None
    if not isinstance(given, dict):
        raise UsageError(f"--resources (={text}) must name what a run takes: {EXAMPLE}.")
    for name, value in given.items():
        if name not in ("cpu", "gpu"):
            raise UsageError(
                f"--resources: there is no {name!r}.{did_you_mean(name, ('cpu', 'gpu'))} There are cpu and gpu."
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1e-4 <= value < 1e6):
            raise UsageError(f"--resources: {name} (={value}) must be 0, or a number from 0.0001 on.")
    resources = Resources(**given)
    if resources.gpu > 1 and resources.gpu % 1:
        raise UsageError(f"--resources: gpu (={resources.gpu:g}) must be a share of one GPU, or a whole number.")
    if resources.cpu + resources.gpu == 0:
        raise UsageError("--resources: cpu and gpu are 0: all runs would start at once. Ask for a part of either.")
    return resources


def import_ray(address: str | None) -> ModuleType:
    """Ray, set up to report nothing to its makers, to be silent, and to stay on this machine if it is started here.

    Raises:
        UsageError: It is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # a page of its own state into our table, where a node is lost
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on any system: listen on the loopback address alone
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # or Ray would leave one in the home folder
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--executor ray needs Ray ({one_line(error)}): pip install 'lightning-cifar[ray]'") from error
    return ray


def run_on_ray(
    jobs: Sequence[Job], num_jobs: int | None, watch: Watcher, *, address: str | None, resources: Resources
) -> None:
    """Do the jobs; a run whose process or node is lost goes on from its checkpoint, up to ``RETRIES`` times.

    Args:
        jobs: in their order. Their folders must be seen by all nodes, at the same path.
        num_jobs: runs at a time; None for as many as there is room for.
        watch: as of ``run_locally``; a run that is lost is told as "broken".
        address: of a cluster, HOST:PORT or auto; None starts a Ray on this machine, and ends it.
        resources: what each run takes.

    Raises:
        UsageError: There is no such cluster, none of its nodes has the resources, or a node does not see the folder.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after all runs have ended.
    """
    if not jobs:
        return
    ray = import_ray(address)
    try:
        _connect(ray, address, None if num_jobs is None else math.ceil(num_jobs * resources.cpu))
        with terminations_raised():  # only now: Ray's own handler, which prints a stack of C++, is set by then
            _do(ray, jobs, num_jobs, watch, resources)
    finally:
        ray.shutdown()


def _do(ray: ModuleType, jobs: Sequence[Job], num_jobs: int | None, watch: Watcher, resources: Resources) -> None:
    """The same with a Ray that is there; all runs have ended afterwards."""
    waiting, lost = list(jobs), Counter[Job]()
    running: dict[ObjectRef[Any], Job] = {}
    try:
        _refuse_missing(ray.nodes(), resources)
        mailbox = ray.remote(num_cpus=0, max_restarts=-1)(_Mailbox).remote()
        # A process does one run: nothing is taken over from the one before, and a GPU's memory is given back.
        task = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=0, max_calls=1)(_run)
        while waiting or running:
            while waiting and (num_jobs is None or len(running) < num_jobs):
                job = waiting.pop(0)
                start = task.options(name=f"{job.arm}, seed {job.seed}")
                running[start.remote(job, os.getcwd(), resources.gpu > 0, mailbox)] = job
            ended, _ = ray.wait(list(running), timeout=0.5)
            for job, progress in _mail(ray, mailbox):
                if job in running.values():
                    watch(job, progress)
            for reference in ended:
                job = running.pop(reference)
                state = _state(ray, reference, job)
                watch(job, state)
                if state == "broken" and lost[job] < RETRIES:
                    lost[job] += 1
                    waiting.insert(0, job)
    finally:
        _end(ray, list(running))


def _end(ray: ModuleType, running: Sequence[ObjectRef[Any]]) -> None:
    for reference in running:
        ray.cancel(reference, force=True)
    if running:
        ray.wait(running, num_returns=len(running), timeout=10)


def _connect(ray: ModuleType, address: str | None, num_cpus: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        store = 100 * 2**20  # bytes: nothing but news goes through it; by default it takes a third of the memory
        ray.init("local", num_cpus=num_cpus, include_dashboard=False, object_store_memory=store, **quiet)
        return
    host, _, port = address.rpartition(":")
    if address != "auto":
        if not host or "/" in host or not port.isdecimal():
            raise UsageError(
                f"--address (={address}) must be HOST:PORT of a cluster that this machine is part of, or auto."
            )
        try:  # Ray itself would try for two minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UsageError(f"--address (={address}): no Ray answers there ({one_line(error)}).") from error
    try:
        ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"--address (={address}): {one_line(error)}") from error


def _refuse_missing(nodes: Sequence[Mapping[str, Any]], resources: Resources) -> None:
    """Refuse what no node has, since Ray would wait for one that does; say where GPUs lie idle."""
    rooms = [(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes if node["Alive"]]
    if not any(cpu >= resources.cpu and gpu >= resources.gpu for cpu, gpu in rooms):
        cpu, gpu = max(rooms, key=lambda room: room[::-1] if resources.gpu else room, default=(0, 0))
        raise UsageError(
            f"--resources: a run asks for {resources.cpu:g} cpu and {resources.gpu:g} gpu, and no node of this Ray has "
            f"that: the largest has {cpu:g} and {gpu:g}."
        )
    if not resources.gpu and (count := sum(gpu for _, gpu in rooms)):
        print(f"runs ask for no GPU and see none of the {count:g}: to use them, {EXAMPLE}", file=sys.stderr)


def _state(ray: ModuleType, reference: ObjectRef[Any], job: Job) -> State:
    """How a task ended; broken if its process or its node was lost.

    Raises:
        UsageError: It could not start, as no run on that node could.
    """
    try:
        state: State = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UsageError):
            raise UsageError(str(error.cause)) from None
        raise UsageError(f"Ray could not start {job.arm}, seed {job.seed}: {one_line(error.cause)}") from error
    except ray.exceptions.RayError:
        return state if (state := state_of(job)) in ("done", "diverged") else "broken"
    return state


class _Mailbox:
    """News of all runs on its way to the study."""

    def __init__(self) -> None:
        self.news: list[tuple[Job, Progress | None]] = []

    def put(self, job: Job, progress: Progress | None) -> None:
        self.news.append((job, progress))

    def take(self) -> list[tuple[Job, Progress | None]]:
        news, self.news = self.news, []
        return news


def _mail(ray: ModuleType, mailbox: Actor) -> list[tuple[Job, Progress | None]]:
    """What has come in; nothing while the mailbox is being moved from a node that was lost."""
    news: list[tuple[Job, Progress | None]] = []
    with suppress(ray.exceptions.RayError):
        news = ray.get(mailbox.take.remote(), timeout=5)
    return news


def _run(job: Job, folder: str, with_gpu: bool, mailbox: Actor) -> State:
    """The task: one run, in a process of its own on some node."""
    if not (Path(folder) / job.config).is_file():
        raise UsageError(
            f"node {platform.node()} does not see {Path(folder) / job.config}: start the study in a folder on storage "
            "that all nodes share, at the same path."
        )
    os.chdir(folder)  # the study's paths, and those of its data, are seen from where it was started
    os.environ.pop("LIGHTNING_CIFAR_RUN_DIR", None)
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    if not with_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides GPUs only from those that ask for some
    redirect_output(job.log)
    mailbox.put.remote(job, None)

    def say(progress: Progress) -> None:
        mailbox.put.remote(job, progress)

    try:
        from lightning_cifar.studies.run import work

        return work(job, say)
    except BaseException:  # the record itself could not be written: as a process that dies, it is tried again
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)
