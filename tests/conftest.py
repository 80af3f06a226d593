"""What all tests share: addresses beyond this machine are refused, and a browser for those that open a page."""

from __future__ import annotations

import gc
import io
import logging
import multiprocessing as mp
import os
import random
import runpy
import shutil
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from tensorboard.summary.writer import event_file_writer

from lightning_cifar.plots import rendering
from lightning_cifar.studies.local import PRELOADED

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from selenium.webdriver import Chrome

# Event files of one second are read in the order of their names, where the counter 10 comes before 9. Counters of equal
# length keep the order in which the files were written, however many of them this process wrote before.
event_file_writer._global_uid = event_file_writer.AtomicCounter(1_000_000)

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # as in main: they concern calls in Lightning

LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "", None, socket.gethostname()}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def local_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise AssertionError(f"a test reached for the network: {address}")
        connect(self, address)

    def local_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in LOCAL:
            raise AssertionError(f"a test looked up {name}")
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", local_connect)
    monkeypatch.setattr(socket, "getaddrinfo", local_lookup)


class CurrentStderr:
    """What ``sys.stderr`` is at the moment."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


@pytest.fixture(autouse=True)
def _lightnings_log_goes_where_stderr_is() -> None:
    """Its handlers would hold the stream of the test that imported it, which is closed by now."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            if type(handler) is logging.StreamHandler and not isinstance(handler.stream, CurrentStderr):
                handler.stream = CurrentStderr()


def to_blank_png(figure: Figure, dpi: float = 120) -> bytes:
    """Return an empty picture of the right size in place of the figure."""
    width, height = (round(inches * dpi) for inches in figure.get_size_inches())
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, "png", compress_level=1)
    return buffer.getvalue()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Save pictures without drawing them, which takes half of the time of many tests.

    Tests in ``tests/plots`` and tests marked ``drawn`` do draw them.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("drawn") and "plots" not in item.path.parts:
            patch.setattr(rendering, "to_png", to_blank_png)
        return (yield)


def pytest_collection_finish() -> None:
    """Leave the many objects of the imported libraries out of garbage collection, which would visit them every time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the folder of the test the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A fork copies no threads: a forked process that asks OpenMP for those of its parent waits for them for ever."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def start_command(tmp_path: Path) -> Iterator[Callable[..., BaseProcess]]:
    """Return a function that starts ``lightning-cifar ARGS`` in a process of its own, which need not import torch.

    It is forked by the server that also forks the runs of studies. Both outputs are in the file ``log``.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    script = str(Path(__file__).with_name("command_process.py"))
    started: list[BaseProcess] = []

    def start(*args: str, log: Path = tmp_path / "command.log", **environment: str) -> BaseProcess:
        command = {"args": args, "log": str(log), "environment": environment}
        process = context.Process(target=runpy.run_path, args=(script, {"COMMAND": command}, "command"))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:  # where a test failed
        process.terminate()
        process.join()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle the files, and the tests within each, where LIGHTNING_CIFAR_TEST_ORDER holds a seed."""
    if seed := os.environ.get("LIGHTNING_CIFAR_TEST_ORDER"):
        draw = random.Random(int(seed))
        places = {path: draw.random() for path in dict.fromkeys(item.path for item in items)}
        draw.shuffle(items)
        items.sort(key=lambda item: places[item.path])


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A real browser, with a window of the module's ``WINDOW`` (width, height) in pixels, and its ``FLAGS`` if any."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no chromium with its chromedriver (Debian: apt-get install chromium chromium-driver)")
    width, height = request.module.WINDOW
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    more = (f"--window-size={width},{height}", f"--user-data-dir={profile}", *getattr(request.module, "FLAGS", ()))
    for flag in (*FLAGS.split(), *more):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "localhost,127.0.0.1")  # the driver is on this machine, whatever proxy there is
        chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        try:
            chrome.set_page_load_timeout(600)
            yield chrome
        finally:
            chrome.quit()
