"""A run and a study in a real TensorBoard server, opened in a real browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lightning_cifar import cli

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WINDOW = (2600, 1400)  # of the browser fixture: all columns of HPARAMS
FLAGS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # WebGL without a GPU: PROJECTOR
FIT = [
    *("fit", "--model", "LeNet", "--data", "SyntheticDataModule", "--data.num_train", "96", "--data.num_val", "40"),
    *("--data.num_test", "50", "--data.batch_size", "32", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2"),
    *("--trainer.enable_progress_bar", "false", "--test_after_fit", "true"),
]
OVERLAYS = ("weight_histograms", "embedding_projector", "weight_gif")
# All text of the page, with that of its components.
TEXT = """
const text = node => {
  if (["STYLE", "SCRIPT"].includes(node.nodeName)) return "";
  if (node.nodeType === Node.TEXT_NODE) return node.textContent;
  if (node.nodeName === "IFRAME") return node.contentDocument?.body ? text(node.contentDocument.body) : "";
  return [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes].map(text).join(" ");
};
return text(document.body);
"""

# Type of the first picture that is shown; null before.
PICTURE = """
const images = node => [
  ...node.querySelectorAll("img"),
  ...[...node.querySelectorAll("*")].filter(each => each.shadowRoot).flatMap(each => images(each.shadowRoot)),
];
const done = arguments[0], found = images(document).find(each => each.naturalWidth && each.src.includes("/images/"));
found ? fetch(found.src).then(reply => done(reply.headers.get("content-type"))) : done(null);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_study: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    overlays = [word for name in OVERLAYS for word in ("--config", f"configs/callbacks/{name}.yaml")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main([*FIT, *overlays, "--run_dir", "one"]) == 0
        assert cli.main(["report", str(write_study(folder / "s", {"plain": 0.0, "fine": 0.1}))]) == 0
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--host", "localhost"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        found = None
        while found is None:
            assert server.poll() is None, (folder / "server.log").read_text()
            found = re.search(r"http://localhost:\d+/", (folder / "server.log").read_text())
        yield found[0]
    finally:
        server.terminate()
        server.wait()


def open_tab(browser: Chrome, address: str, tab: str, *expected: str) -> str:
    """Open a tab, wait until its text contains all that is expected, and return the text."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    browser.get(f"{address}#{tab}")
    text, asked = "", 0

    def is_complete(_: object) -> bool:
        nonlocal text, asked
        text, asked = " ".join(str(browser.execute_script(TEXT)).split()), asked + 1  # type: ignore[no-untyped-call]
        if asked % 30 == 0:
            browser.refresh()  # the server may not have read the files at first
        return all(each in text for each in expected)

    WebDriverWait(browser, 100, poll_frequency=0.5).until(is_complete, f"{tab} never contained all of {expected}")
    return text


def test_every_tab_shows_its_values(browser: Chrome, address: str, folder: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    metrics = json.loads((folder / "one/result.json").read_text())["metrics"]
    accuracies = [f"{metrics[name]:#.5g}" for name in ("val/accuracy", "test/accuracy")]
    text = open_tab(browser, address, "hparams", "Trial ID", "end/val/accuracy", "data.batch_size", *accuracies)
    assert "hp_metric" not in text
    open_tab(browser, address, "text", "classes/test", "network/layers", "Conv2d(3, 6")
    open_tab(browser, address, "graphs", "LeNet", "Main Graph")
    open_tab(browser, address, "pr_curves", "pr/test/", "one")
    open_tab(browser, address, "histograms", "gradients/network.0.weight")
    open_tab(browser, address, "projector", "Points: 40", "Dimension: 84", "features/epoch_002")
    open_tab(browser, address, "custom_scalars", "mean and 95 % band", "val/accuracy", "s/plain (mean)", "s/fine (me")
    open_tab(browser, address, "images&tagFilter=filters", "Tags matching", "filters/weights one tag", "step 5")
    # Until the filter is applied, the first picture is another one.
    wait = WebDriverWait(browser, 100, poll_frequency=0.2)
    wait.until(lambda _: browser.execute_async_script(PICTURE) == "image/gif", "the first picture is no GIF")  # type: ignore[no-untyped-call]
