"""The report in a real browser: opened from a file, zoomed with the mouse, with its controls used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pages import opened

from lightning_cifar.analysis.statistics import mean_curve
from lightning_cifar.cli import main
from lightning_cifar.studies.report import curves as report_curves
from lightning_cifar.studies.report.comparison import compare
from lightning_cifar.studies.report.curves import arm_curves

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WINDOW = (1400, 900)  # of the browser fixture
WILD = "</script><b>wild</b> & co"
PANELS = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, write_study: Callable[..., Path], write_run: Callable[..., None]
) -> Path:
    """Three arms, the last of which diverges and has a name that is markup."""
    folder = write_study(tmp_path_factory.mktemp("study") / "s", {"plain": 0.0, "fine": 0.1}, steps=60)
    held = json.loads((folder / "study.json").read_text())
    held["arms"][WILD] = {"model": {"class_path": "LeNet", "init_args": {"lr": 1e9}}}
    (folder / "study.json").write_text(json.dumps(held))
    (folder / "about.json").unlink()
    # On disk the arm's folder has a name that a folder can have: the page must cope with what study.json says.
    write_run(folder / WILD.replace("/", "_") / "seed-0", seed=0, state="diverged")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_curves, "_MOST_PIECES", 100)  # so that 300 points are decimated
        assert main(["report", str(folder), "--out", str(path)]) == 0
    return path.as_uri()


@pytest.fixture
def page(browser: Chrome, address: str) -> Iterator[Page]:
    """The newly opened page; after each test there must be no console messages and no requests of other files."""
    with opened(browser, address):
        page = Page(browser)
        page.wait_until("window.report && report.panels.every(panel => panel.view)")
        yield page


class Page:
    """Actions of a reader, and the visible contents."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def ask(self, expression: str) -> Any:
        return self.browser.execute_script(f"return {expression};")  # type: ignore[no-untyped-call]

    def wait_until(self, expression: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 600, poll_frequency=0.05).until(
            lambda _: self.ask(f"!!({expression})"), f"never came true: {expression}"
        )

    def view(self, panel: int) -> dict[str, list[float]]:
        view: dict[str, list[float]] = self.ask(f"report.panels[{panel}].view")
        return view

    def drag(self, panel: int, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse between two points of a panel, in fractions from its lower left corner."""
        from selenium.webdriver import ActionChains

        canvas = self.browser.find_elements("css selector", ".plot canvas + canvas")[panel]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)  # type: ignore[no-untyped-call]
        box = self.ask(f"report.panels[{panel}].box")
        size = canvas.size
        places = [
            (
                round(box["x"] + x * box["width"] - size["width"] / 2),
                round(box["y"] + (1 - y) * box["height"] - size["height"] / 2),
            )
            for x, y in (start, end)
        ]
        (x0, y0), (x1, y1) = places
        mouse = ActionChains(self.browser, duration=50).move_to_element_with_offset(canvas, x0, y0)
        if start != end:
            mouse = mouse.click_and_hold().move_by_offset(x1 - x0, y1 - y0).release()
        mouse.perform()

    def double_click(self, panel: int) -> None:
        """Repeat until the zoom is reset: on a busy machine the two clicks may be too slow for a double click."""
        from selenium.webdriver import ActionChains

        canvas = self.browser.find_elements("css selector", ".plot canvas + canvas")[panel]
        for _ in range(100):
            ActionChains(self.browser).double_click(canvas).perform()
            if not self.ask(f"report.panels[{panel}].zoom"):
                return
        raise AssertionError("no double click took the zoom back")

    def pixels(self, panel: int) -> str:
        """The drawn image."""
        return str(self.ask(f"report.panels[{panel}].canvas.toDataURL()"))

    def click(self, selector: str) -> None:
        element = self.browser.find_element("css selector", selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)  # type: ignore[no-untyped-call]
        element.click()


def test_a_table_is_never_cut_off(page: Page) -> None:
    """It fits into a wide page; in a narrow one it scrolls inside its box, but the page does not."""
    wide = "document.querySelector('#results').parentElement"
    try:
        page.browser.set_window_size(1300, 900)
        page.wait_until("innerWidth <= 1300")
        assert page.ask(f"{wide}.scrollWidth - {wide}.clientWidth") == 0
        page.browser.set_window_size(600, 900)
        page.wait_until("innerWidth <= 600")
        assert page.ask(f"{wide}.scrollWidth > {wide}.clientWidth")
        assert page.ask("document.documentElement.scrollWidth <= innerWidth")
        assert page.ask(f"getComputedStyle({wide}).overflowX") == "auto"
    finally:
        page.browser.set_window_size(*WINDOW)


def test_it_shows_the_panels_and_the_bands_of_the_statistics(page: Page, folder: Path) -> None:
    assert page.ask("report.panels.map(panel => panel.metric.name)") == list(PANELS)
    assert page.ask("document.documentElement.scrollWidth <= innerWidth"), "nothing reaches out of the page"
    for index, metric in enumerate(PANELS):
        curves = arm_curves(compare([folder]), metric)["fine"]
        band = mean_curve(curves.values)
        drawn = page.ask(
            f"(s => [s.x, s.mean, s.width].map(a => Array.from(a)))(report.panels[{index}].series"
            ".find(each => each.arm.name === 'fine'))"
        )
        np.testing.assert_allclose(drawn[0], [1, 2, 3, 4, 5])
        np.testing.assert_allclose(drawn[1], band.mean, rtol=1e-6)
        np.testing.assert_allclose(drawn[2], band.high - band.mean, rtol=1e-3)


def test_any_name_of_an_arm_and_any_number_of_epochs(
    browser: Chrome, tmp_path: Path, write_run: Callable[..., None]
) -> None:
    names = ("plain", "constructor", "__proto__")
    for name in names:
        write_run(tmp_path / name, seed=0, config={"model": {"class_path": name}}, timed=False)
        path = tmp_path / name / "metrics.csv"
        head, *rows = path.read_text().splitlines()
        if name != "plain":  # two arms do not have a metric that the other has
            head = head.replace("val/accuracy,", "val/other,")
        else:
            rows = [f"{10**17 + 64 * int(row[0])}{row[1:]}" if row[0] != "," else row for row in rows]
        path.write_text("\n".join([head, *rows, ""]))
    out = tmp_path / "r.html"
    assert main(["report", *(str(tmp_path / name) for name in names), "--out", str(out)]) == 0
    browser.get("about:blank")
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    browser.get(out.as_uri())
    page = Page(browser)
    page.wait_until("window.report && report.panels.every(panel => panel.view)")
    accuracy = "report.panels.find(panel => panel.metric.name === 'val/accuracy')"
    assert page.ask(f"{accuracy}.series.map(each => each.arm.name)") == ["plain"]
    assert page.ask("report.panels[0].series.map(each => each.arm.name)") == list(names)
    assert page.ask("ticksOf(1e17, 1e17 + 16, 5).ticks.length") < 13
    assert page.ask("ticksOf(0, 10, 5).ticks") == [0, 2, 4, 6, 8, 10]
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]


def test_names_are_shown_as_they_are(page: Page) -> None:
    buttons = [button.text for button in page.browser.find_elements("css selector", "[data-arm]")]
    assert buttons == ["plain", "fine", WILD]
    assert page.ask("document.querySelectorAll('b').length") == 0


def test_dragging_a_box_zooms_and_a_double_click_shows_all(page: Page) -> None:
    before = page.view(3)
    page.drag(3, (0.25, 0.2), (0.75, 0.6))
    page.wait_until("report.panels[3].zoom")
    after = page.view(3)
    for axis, (start, end) in (("x", (0.25, 0.75)), ("y", (0.2, 0.6))):
        low, high = before[axis]
        expected = [low + part * (high - low) for part in (start, end)]
        assert after[axis] == pytest.approx(expected, abs=0.01 * (high - low))
    assert page.ask("report.panels[2].zoom") is None, "each panel for itself"
    page.double_click(3)
    assert page.view(3) == before


def test_a_flat_box_zooms_along_one_axis(page: Page) -> None:
    before = page.view(0)
    page.drag(0, (0.5, 0.5), (0.9, 0.5))
    page.wait_until("report.panels[0].zoom")
    assert page.view(0)["y"] == pytest.approx(before["y"])
    assert page.view(0)["x"][0] == pytest.approx(sum(before["x"]) / 2, rel=0.02)
    page.click(".reset:not([hidden])")
    assert page.view(0) == before


def test_the_axes_switch(page: Page) -> None:
    ends = {}
    for axis in ("step", "seconds", "epoch"):
        page.click(f"[data-axis={axis}]")
        page.wait_until(f"document.querySelector('[data-axis={axis}]').ariaPressed === 'true'")
        ends[axis] = page.ask("Math.max(...report.panels[3].series[0].x)")
    assert (ends["step"], ends["epoch"]) == (300, 5)
    assert ends["seconds"] == pytest.approx(7.5, abs=0.1)


def test_the_logarithmic_axis_and_back(page: Page) -> None:
    before, drawn = page.view(1), page.pixels(1)
    page.click("#log")
    low, high = page.view(1)["y"]
    assert 10**low < before["y"][1] < 1
    assert 10**high == pytest.approx(before["y"][1], rel=0.3)
    assert page.pixels(1) != drawn
    page.drag(1, (0.2, 0.3), (0.6, 0.7))
    page.wait_until("report.panels[1].zoom")
    zoomed = page.view(1)["y"]
    page.click("#log")
    assert page.view(1)["y"] == pytest.approx([10**end for end in zoomed]), "a zoom outlives the change"
    page.double_click(1)
    assert page.view(1) == before


def test_smoothing_leaves_the_raw_data_where_they_are(page: Page) -> None:
    page.browser.execute_script(  # type: ignore[no-untyped-call]
        "const s = report.panels[0].select; s.value = 'train/loss_step'; s.dispatchEvent(new Event('change'))"
    )
    kinds = "report.panels[0].series.slice(0, 2)"
    bend = "Math.abs(y - 2 * each.mean[i + 1] + each.mean[i])"
    rough = f"Array.from(each.mean).slice(2).reduce((sum, y, i) => sum + {bend}, 0)"
    raw = page.ask(f"{kinds}.map(each => each.raw.map(run => Array.from(run.ys)))")
    before = page.ask(f"{kinds}.map(each => {rough})")
    from selenium.webdriver.common.keys import Keys

    slider = page.browser.find_element("id", "smooth")
    slider.send_keys(*[Keys.ARROW_RIGHT] * 20)
    page.wait_until("report.state.smooth === 20 && document.getElementById('smooth-text').textContent === '20 %'")
    page.wait_until(f"{kinds}.every((each, k) => {rough} < 0.5 * {json.dumps(before)}[k])")
    assert page.ask(f"{kinds}.map(each => each.raw.map(run => Array.from(run.ys)))") == raw
    assert len(raw[0]) == 3, "every seed is still drawn"


def test_decimated_curves_keep_their_extremes(page: Page, folder: Path) -> None:
    assert page.ask("report.data.decimated") == {"pieces": 100, "points": 300}
    assert "in 100 pieces" in page.browser.find_element("tag name", "body").text
    page.browser.execute_script(  # type: ignore[no-untyped-call]
        "const s = report.panels[0].select; s.value = 'train/loss_step'; s.dispatchEvent(new Event('change'))"
    )
    drawn = page.ask("report.panels[0].series[0].raw.map(run => [Math.min(...run.ys), Math.max(...run.ys)])")
    values = arm_curves(compare([folder]), "train/loss_step")["plain"].values
    np.testing.assert_allclose(drawn, np.stack([values.min(axis=1), values.max(axis=1)], axis=1), rtol=1e-6)


def test_a_click_hides_an_arm(page: Page) -> None:
    drawn = page.pixels(3)
    page.click("[data-arm=plain]")
    page.wait_until("report.panels[3].visible.length === report.panels[3].series.length - 1")
    assert page.pixels(3) != drawn
    page.click("[data-arm=plain]")
    page.wait_until("report.panels[3].visible.length === report.panels[3].series.length")


def test_the_tooltip_shows_mean_interval_and_n(page: Page) -> None:
    page.drag(3, (0.98, 0.5), (0.98, 0.5))
    page.wait_until("!report.panels[3].tip.hidden")
    text = page.browser.find_elements("css selector", ".tip")[3].text
    mean = page.ask("report.panels[3].series[1].mean[4]")
    assert f"fine {100 * mean:.2f} %" in " ".join(text.split())
    assert text.count("n = 3") == 2
    assert "5 epochs" in text


def test_tuning_effects_and_sources_of_variance(
    browser: Chrome, tmp_path: Path, write_study: Callable[..., Path]
) -> None:
    """All parts are shown, with loaded pictures, and fit into a narrow page."""
    folder = write_fair_study(tmp_path / "s", write_study)
    out = tmp_path / "r.html"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    browser.get("about:blank")
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    browser.get(out.as_uri())
    page = Page(browser)
    page.wait_until("window.report && report.panels.every(panel => panel.view)")
    titles = page.ask("Array.from(document.querySelectorAll('h2')).map(each => each.textContent)")
    parts = ["Paired differences", "Tuning", "Effects of the settings", "Seeds or images: sources of uncertainty"]
    assert [title for title in titles if title in parts] == parts
    verdicts = page.ask("Array.from(document.querySelectorAll('#differences tbody tr')).map(r => r.cells[9].innerText)")
    assert verdicts == ["better", "better", "better", "better", "better", "better"]
    for name, rows in {"tuning": 4, "effects": 3, "images": 6, "differences": 6}.items():
        assert page.ask(f"document.querySelectorAll('#{name} tbody tr').length") == rows
        assert page.ask(f"document.querySelector('#{name}').getBoundingClientRect().height") > 50
    pictures = "Array.from(document.querySelectorAll('h2 ~ .pictures img'))"
    page.browser.execute_script(f"{pictures}.forEach(each => each.loading = 'eager')")  # type: ignore[no-untyped-call]
    page.wait_until(f"{pictures}.every(each => each.complete && each.naturalWidth > 600)")
    assert page.ask(f"{pictures}.length") == 2
    assert page.ask(f"{pictures}.every(each => each.getBoundingClientRect().width <= innerWidth)")
    try:
        browser.set_window_size(600, 900)
        page.wait_until("innerWidth <= 600")
        assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.set_window_size(*WINDOW)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]


def write_fair_study(folder: Path, write_study: Callable[..., Path]) -> Path:
    """A tuned grid of two settings, with all pairs, a margin, and the correct images of each run."""
    sizes = {"slow plain": 0.0, "slow flip": 0.05, "fast plain": 0.1, "fast flip": 0.25}
    write_study(folder, sizes, seeds=10)
    held = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**held, "compare": "all", "margin": 0.02}))
    about = json.loads((folder / "about.json").read_text())
    overrides = {arm: {"model.optimizer": arm.split()[0], "data.augment": [arm.split()[1]]} for arm in sizes}
    (folder / "about.json").write_text(json.dumps({**about, "overrides": overrides}))
    arms = {}
    for arm, size in sizes.items():
        tried: list[dict[str, Any]] = []
        for i, rate in enumerate((0.003, 0.01, 0.03, 0.1, 0.3)):
            values = [0.5 + size - 0.02 * (i - 2) ** 2 + 0.004 * seed for seed in range(2)]
            tried.append({"settings": {"model.lr": rate}, "epochs": 5, "values": values})
        arms[arm] = {"tried": tried, "chosen": {"model.lr": 0.03}, "at_border": []}
    (folder / "tuning.json").write_text(json.dumps({"seeds": [100_000, 100_001], "epochs": 50, "arms": arms}))
    rng = np.random.default_rng(0)
    for arm, size in sizes.items():
        for seed in range(10):
            correct = rng.uniform(size=500) < 0.6 + size
            np.savez(folder / arm / f"seed-{seed}/correct.npz", bits=np.packbits(correct), count=500)
    return folder
