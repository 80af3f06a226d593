"""Runs in processes of this machine: each forked from one that has loaded everything, so that a start costs little."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait

from lightning_cifar.errors import one_line
from lightning_cifar.runs.signals import Terminated
from lightning_cifar.studies.jobs import Job, Progress, State, redirect_output, state_of

Watcher = Callable[[Job, State | Progress | str | None], None]


def run_locally(jobs: Sequence[Job], num_jobs: int, watch: Watcher) -> None:
    """Do the jobs, ``num_jobs`` at a time.

    Args:
        jobs: in their order.
        num_jobs: processes at a time.
        watch: is told of a job that starts (None), its progress, why it broke off, and the state in which it ended.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, after all processes have ended.
    """
    # A server that has imported all there is, and forks itself: a run starts without the seconds of an import, and
    # takes nothing over from the run before.
    context = mp.get_context("forkserver")
    # The last two are what a run would import as it starts to log, and at its first picture.
    context.set_forkserver_preload(["lightning_cifar.studies.run", "torch.utils.tensorboard", "matplotlib.figure"])
    waiting = list(jobs)
    running: dict[int, tuple[Job, mp.process.BaseProcess, Connection]] = {}
    with _interrupts_noted() as interrupted:
        try:
            while waiting or running:
                if interrupted:
                    raise interrupted[0]
                while waiting and len(running) < num_jobs:
                    job = waiting.pop(0)
                    ours, theirs = context.Pipe(duplex=False)
                    process: mp.process.BaseProcess = context.Process(target=_worker, args=(job, theirs), daemon=True)
                    with _interrupts_blocked():
                        process.start()
                    theirs.close()
                    running[process.sentinel] = (job, process, ours)
                    watch(job, None)
                pipes = {ours: job for job, _, ours in running.values()}
                ready = wait([*running, *pipes], timeout=0.5)
                for thing in ready:
                    if isinstance(thing, Connection):
                        _drain(thing, pipes[thing], watch)
                for sentinel in [thing for thing in ready if isinstance(thing, int)]:
                    job, process, ours = running.pop(sentinel)
                    process.join()
                    _drain(ours, job, watch)
                    ours.close()
                    watch(job, state_of(job))
        finally:
            _end([process for _, process, _ in running.values()])


def _drain(pipe: Connection, job: Job, watch: Watcher) -> None:
    try:
        while pipe.poll():
            watch(job, pipe.recv())
    except (EOFError, OSError):
        pass  # the process ended; its state on disk tells how


def _end(processes: Sequence[mp.process.BaseProcess]) -> None:
    """Ask, then insist."""
    for process in processes:
        process.terminate()
    limit = time.monotonic() + 5
    for process in processes:
        process.join(max(limit - time.monotonic(), 0))
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal: the children, and the server that forks them, leave it to us.

    They inherit what is blocked. Here it waits until the block is over, and is not lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupts_noted() -> Iterator[list[type[KeyboardInterrupt]]]:
    """A list that Ctrl-C and SIGTERM fill. An exception would come at any moment, also where Python swallows it."""
    noted: list[type[KeyboardInterrupt]] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    signals: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
    before = {number: signal.signal(number, lambda each, _: noted.append(signals[each])) for number in signals}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _worker(job: Job, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    redirect_output(job.log)
    os.environ.pop("LIGHTNING_CIFAR_RUN_DIR", None)

    def say(progress: Progress) -> None:
        with suppress(OSError):  # nobody listens any more
            pipe.send(progress)

    from lightning_cifar.studies.run import work  # loads torch, which the process above does without

    try:
        work(job, say)
    except KeyboardInterrupt:  # the study ends its runs; each is continued later
        pass
    except OSError as error:  # there is no room for the record either: only the study can still say why
        with suppress(OSError):
            pipe.send(one_line(error))
    pipe.close()
    sys.stdout.flush()


def _die_with_parent() -> None:
    """A killed study must not leave runs behind that write into folders which its successor continues."""
    parent = mp.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
