"""Runs on a Ray cluster, or on a local Ray instance that is started for one study. Each run is a task in a new process.

Plain tasks are used instead of Ray Tune: a study has neither a search nor a schedule of trials. Tune would add retries,
but also a second record of the results (which cannot be extended by seeds or arms) and three times the packages. Ray's
own retries are not used either, since they are unlimited for runs that ended for lack of memory.
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
from lightning_cifar.studies.jobs import Job, Progress, State, redirect_output, state_of, take_ready
from lightning_cifar.studies.local import Watcher

if TYPE_CHECKING:
    from ray import ObjectRef

Actor = Any  # a Ray handle, which has the methods of the class only at run time
RETRIES = 3  # per run and command; starting the study again resumes the run
EXAMPLE = """--resources '{"cpu": 1, "gpu": 0.25}'"""


@dataclass(frozen=True)
class Resources:
    """Resources of a run on a node: cores, and GPUs or a fraction of one."""

    cpu: float = 1
    gpu: float = 0


def read_resources(text: str) -> Resources:
    """Read resources such as ``{"cpu": 1, "gpu": 0.25}``; the default is one core and no GPU.

    Raises:
        UsageError: If the text is not JSON, or a name or a value is invalid.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--resources (={text}) is not JSON ({one_line(error)}): write it like {EXAMPLE}.") from None
    if not isinstance(given, dict):
        raise UsageError(f"--resources (={text}) must be a JSON object: {EXAMPLE}.")
    for name, value in given.items():
        if name not in ("cpu", "gpu"):
            raise UsageError(f"--resources: {name!r} must be cpu or gpu.{did_you_mean(name, ('cpu', 'gpu'))}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1e-4 <= value < 1e6):
            raise UsageError(f"--resources: {name} (={value}) must be 0, or a number of at least 0.0001.")
    resources = Resources(**given)
    if resources.gpu > 1 and resources.gpu % 1:
        raise UsageError(f"--resources: gpu (={resources.gpu:g}) must be a fraction of one GPU, or a whole number.")
    if resources.cpu + resources.gpu == 0:
        raise UsageError("--resources: cpu and gpu are 0, so all runs would start at once: set one above 0.")
    return resources


def import_ray(address: str | None) -> ModuleType:
    """Import Ray without usage statistics and log output; a local instance is only reachable from this machine.

    Raises:
        UsageError: If Ray is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # when a node is lost, Ray would print its state into our table
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on any system: listen only on the loopback address
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray would write one to the home folder
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--executor ray needs Ray ({one_line(error)}): pip install 'lightning-cifar[ray]'") from error
    return ray


def run_on_ray(
    jobs: Sequence[Job], num_jobs: int | None, watch: Watcher, *, address: str | None, resources: Resources
) -> None:
    """Run the jobs; a run whose process or node is lost resumes from its checkpoint, up to ``RETRIES`` times.

    Args:
        jobs: jobs in their order. Their folders must be accessible from all nodes, at the same path.
        num_jobs: maximum number of runs at the same time; None is limited only by the resources.
        watch: see ``run_locally``; a lost run is reported as "broken".
        address: HOST:PORT of a cluster, or auto; None starts a local Ray instance and stops it afterwards.
        resources: resources of each run.

    Raises:
        UsageError: If the cluster cannot be reached, no node has the resources, or a node cannot access the folder.
        KeyboardInterrupt: On Ctrl-C or SIGTERM, after all runs have ended.
    """
    if not jobs:
        return
    ray = import_ray(address)
    try:
        _connect(ray, address, None if num_jobs is None else math.ceil(num_jobs * resources.cpu))
        with terminations_raised():  # after Ray has installed its handler, which would print a C++ stack trace
            _run_all(ray, jobs, num_jobs, watch, resources)
    finally:
        ray.shutdown()


def _run_all(ray: ModuleType, jobs: Sequence[Job], num_jobs: int | None, watch: Watcher, resources: Resources) -> None:
    """Run the jobs on a running Ray instance. All runs have ended afterwards."""
    waiting, lost = list(jobs), Counter[Job]()
    running: dict[ObjectRef[Any], Job] = {}
    try:
        _check_resources(ray.nodes(), resources)
        mailbox = ray.remote(num_cpus=0, max_restarts=-1)(_Mailbox).remote()
        # max_calls=1: a new process for each run, which frees the memory of a GPU.
        task = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=0, max_calls=1)(_run)
        while waiting or running:
            while (num_jobs is None or len(running) < num_jobs) and (job := take_ready(waiting, running.values())):
                start = task.options(name=f"{job.arm}, seed {job.seed}")
                running[start.remote(job, os.getcwd(), resources.gpu > 0, mailbox)] = job
            ended, _ = ray.wait(list(running), timeout=0.5)
            for job, progress in _messages(ray, mailbox):
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
        store = 100 * 2**20  # bytes: only messages pass through it; by default it takes a third of the memory
        try:
            ray.init("local", num_cpus=num_cpus, include_dashboard=False, object_store_memory=store, **quiet)
        except Exception as error:  # Ray raises no narrower class if it does not start within 30 s
            raise UsageError(
                f"Ray does not start on this machine ({one_line(error)}): leave --executor ray out, or try again later."
            ) from error
        return
    host, _, port = address.rpartition(":")
    if address != "auto":
        if not host or "/" in host or not port.isdecimal():
            raise UsageError(
                f"--address (={address}) must be HOST:PORT of a cluster that this machine is part of, or auto."
            )
        try:  # ray.init would try for two minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UsageError(f"--address (={address}): Ray does not respond ({one_line(error)}).") from error
    try:
        ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"--address (={address}): {one_line(error)}") from error


def _check_resources(nodes: Sequence[Mapping[str, Any]], resources: Resources) -> None:
    """Reject resources that no node has, for which Ray would wait without end; report unused GPUs."""
    rooms = [(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes if node["Alive"]]
    if not any(cpu >= resources.cpu and gpu >= resources.gpu for cpu, gpu in rooms):
        cpu, gpu = max(rooms, key=lambda room: room[::-1] if resources.gpu else room, default=(0, 0))
        raise UsageError(
            f"--resources: a run needs {resources.cpu:g} cpu and {resources.gpu:g} gpu, but the largest node has only "
            f"{cpu:g} and {gpu:g}."
        )
    if not resources.gpu and (count := sum(gpu for _, gpu in rooms)):
        print(f"the runs do not use the {count:g} GPUs of this cluster: to use them, pass {EXAMPLE}", file=sys.stderr)


def _state(ray: ModuleType, reference: ObjectRef[Any], job: Job) -> State:
    """Return the state of a finished task; broken if its process or its node was lost.

    Raises:
        UsageError: If it could not start, for a reason that holds for every run on that node.
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
    """Messages of all runs to the study."""

    def __init__(self) -> None:
        self.messages: list[tuple[Job, Progress | None]] = []

    def put(self, job: Job, progress: Progress | None) -> None:
        self.messages.append((job, progress))

    def take(self) -> list[tuple[Job, Progress | None]]:
        messages, self.messages = self.messages, []
        return messages


def _messages(ray: ModuleType, mailbox: Actor) -> list[tuple[Job, Progress | None]]:
    """Return the new messages; none while the mailbox restarts after the loss of a node."""
    messages: list[tuple[Job, Progress | None]] = []
    with suppress(ray.exceptions.RayError):
        messages = ray.get(mailbox.take.remote(), timeout=5)
    return messages


def _run(job: Job, folder: str, with_gpu: bool, mailbox: Actor) -> State:
    """Do one run, as a Ray task in a separate process on any node."""
    if not (Path(folder) / job.config).is_file():
        raise UsageError(
            f"node {platform.node()} cannot find {Path(folder) / job.config}: start the study in a folder on storage "
            "that all nodes share, at the same path."
        )
    os.chdir(folder)  # the paths of the study and its data are relative to the folder in which it was started
    os.environ.pop("LIGHTNING_CIFAR_RUN_DIR", None)
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    if not with_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides GPUs only from tasks that request some
    redirect_output(job.log)
    mailbox.put.remote(job, None)

    def send(progress: Progress) -> None:
        mailbox.put.remote(job, progress)

    try:
        from lightning_cifar.studies.run import work

        return work(job, send)
    except BaseException:  # the record could not be written: retried like a process that dies
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)
