"""Folder of a run, which is chosen early, created late and locked during the run."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lightning_cifar.errors import UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.lock import FolderLock
from lightning_cifar.files.output import new_run
from lightning_cifar.files.paths import expand_user
from lightning_cifar.runs.resume import Resumed

RUN_DIR_VARIABLE = "LIGHTNING_CIFAR_RUN_DIR"  # the folder, for the processes that a strategy starts


class RunFolder:
    """Folder of one run. It is created after all early checks have passed.

    Args:
        resumed: The run that is resumed; None for a new run.
        option: Option with which the user names a folder, for messages.
    """

    def __init__(self, resumed: Resumed | None = None, *, option: str = "--run_dir") -> None:
        self.resumed, self.option = resumed, option
        self.run_id = (resumed and resumed.run_id) or secrets.token_hex(8)
        self.path: Path | None = None
        self.has_begun = False
        """Whether the first batch has started. Before, the folder contains no results."""
        self._config = ""
        self._made: list[Path] = []  # folders that this run created, the outermost first
        self._lock: FolderLock | None = None
        self._is_started_by_a_run = RUN_DIR_VARIABLE in os.environ

    def choose(self, given: str | Path | None, stem: str) -> Path:
        """Choose the path without creating it. By default, it is in ``runs/``, with the stem and the time."""
        chosen = os.environ.get(RUN_DIR_VARIABLE) or given
        self.path = expand_user(chosen) if chosen else new_run(stem)
        return self.path

    def claim(self, config: str, fill: Callable[[Path], None] | None = None, *, is_writer: bool = True) -> None:
        """Create the folder or, if a run is resumed, lock its folder; then write ``config.yaml``.

        Args:
            config: Configuration as YAML text.
            fill: Called with a new folder to write further files; ``config.yaml`` follows, which makes it a run.
            is_writer: Whether this process has global rank zero. The other processes of a run, on this and on other
                nodes, write nothing.

        Raises:
            UsageError: If the folder already exists, cannot be created, or is used by another process.
        """
        assert self.path is not None
        os.environ[RUN_DIR_VARIABLE] = str(self.path)
        if not is_writer:
            return
        if self.resumed is None:
            self._make(self.path)
        self._lock = FolderLock(self.path)
        self._config = f"# run {self.run_id}\n{config}"  # as a comment, which a new run with this file ignores
        if self.resumed is None:
            if fill is not None:
                fill(self.path)
            self._write_config()
        else:
            for path in self.path.rglob(".*.part"):  # incomplete files of a killed run
                path.unlink(missing_ok=True)

    def begin(self) -> None:
        """Record the first batch. For a resumed run, write the new options and remove the old result."""
        if self.resumed is not None and not self.has_begun and self.is_claimed:
            self._write_config()
            assert self.path is not None
            (self.path / "result.json").unlink(missing_ok=True)  # it marks a run that ended
        self.has_begun = True

    def _write_config(self) -> None:
        assert self.path is not None
        write_atomically(self.path / "config.yaml", self._config.encode())

    @property
    def is_claimed(self) -> bool:
        """Whether the folder exists, with its configuration."""
        return self._lock is not None

    def _make(self, path: Path) -> None:
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists, and a run does not overwrite files: pass another {self.option}.")
        missing = [folder for folder in reversed(path.parents) if not folder.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()  # fails for the second of two runs that start at once
        except OSError as error:
            reason = f"{os.strerror(error.errno or 0)}; pass another {self.option}."
            raise UsageError(f"cannot create the run folder {path}: {reason}") from error
        self._made = [*missing, path]

    def leave_nothing(self) -> None:
        """Remove the folder of a run that failed before its first batch."""
        if not self.has_begun and self._made:
            shutil.rmtree(self._made.pop(), ignore_errors=True)
            with suppress(OSError):  # not empty: it contains another run
                while self._made:
                    self._made.pop().rmdir()

    def release(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            self._lock.release()
        if not self._is_started_by_a_run:
            os.environ.pop(RUN_DIR_VARIABLE, None)
