"""Runs in local processes, forked from a process that has imported all libraries, so that a run starts fast."""

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
from lightning_cifar.studies.jobs import Job, Progress, State, redirect_output, state_of, take_ready

# A run would import the last two when it starts to log and at its first picture.
PRELOADED = ["lightning_cifar.studies.run", "torch.utils.tensorboard", "matplotlib.figure"]

Watcher = Callable[[Job, State | Progress | str | None], None]


def run_locally(jobs: Sequence[Job], num_jobs: int, watch: Watcher) -> None:
    """Run the jobs, ``num_jobs`` at the same time.

    Args:
        watch: called when a job starts (with None), for its progress, its error, and its final state.

    Raises:
        KeyboardInterrupt: On Ctrl-C or SIGTERM, after all processes have ended.
    """
    # The fork server imports everything once: a run starts without seconds of imports, in a new process.
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting = list(jobs)
    running: dict[int, tuple[Job, mp.process.BaseProcess, Connection]] = {}
    with _interrupts_noted() as interrupted:
        try:
            while waiting or running:
                if interrupted:
                    raise interrupted[0]
                while len(running) < num_jobs and (job := take_ready(waiting, [each[0] for each in running.values()])):
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
        pass  # the process ended; its state is on disk


def _end(processes: Sequence[mp.process.BaseProcess]) -> None:
    """Terminate the processes, and kill those that do not end within 5 seconds."""
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
    """Block Ctrl-C for processes that start inside, which inherit this; here it is delivered afterwards.

    Ctrl-C reaches all processes of a terminal, but only this one must handle it, not the workers and their fork server.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupts_noted() -> Iterator[list[type[KeyboardInterrupt]]]:
    """Collect Ctrl-C and SIGTERM in a list. An exception could be raised at any point, also where Python ignores it."""
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

    def send(progress: Progress) -> None:
        with suppress(OSError):  # the study has ended
            pipe.send(progress)

    from lightning_cifar.studies.run import work  # imports torch, which the parent process does not need

    try:
        work(job, send)
    except KeyboardInterrupt:  # the study ended; the run can be resumed
        pass
    except OSError as error:  # the record could not be written, for example on a full disk: only the study can report
        with suppress(OSError):
            pipe.send(one_line(error))
    pipe.close()
    sys.stdout.flush()


def _die_with_parent() -> None:
    """End this run if the study is killed, so that it does not write to a folder that the next study resumes."""
    parent = mp.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
