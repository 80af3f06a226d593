"""The page in a real browser, opened from a file: mouse, buttons and legend."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pages import opened

from lightning_cifar.plots import lr_range_html

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

WINDOW = (1200, 800)  # of the browser fixture
LRS = np.geomspace(1e-4, 10, 200)
WHOLE = (math.log10(LRS[0]), math.log10(LRS[-1]))
NUM_PIECES = "document.querySelectorAll('.scatterlayer .trace path.js-line').length"
TITLE = "</script><script>document.title = 'taken over'</script><b>resnet18</b> & co"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of two sweeps, the second of which diverges; the first has a gap."""
    smoothed = 2.5 - 0.9 / (1 + np.exp(-4 * (np.log10(LRS) + 2)))
    losses = smoothed + 0.1 * np.random.default_rng(0).standard_normal(200)
    exploding = smoothed + np.where(LRS > 2, 1e5 * LRS, 0)
    losses[150] = np.nan
    page = lr_range_html(
        [(LRS, losses, smoothed), (LRS, exploding, exploding)],
        suggestion=0.02,
        interval=(0.01, 0.05),
        marks={"steepest": 0.01, "<i>valley</i> %{x}": 0.3, "nothing": math.nan},
        own_lr=0.1,
        seeds=[4, 5],
        title=TITLE,
    )
    path: Path = tmp_path_factory.mktemp("page") / "lr_range.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def plot(browser: Chrome, address: str) -> Iterator[Page]:
    """Open the page; after each test the browser must have no errors and no requests for other files."""
    with opened(browser, address):
        page = Page(browser)
        page.wait_until("p && p._fullLayout && document.querySelectorAll('.scatterlayer .trace').length > 0")
        yield page


class Page:
    """Actions of a user, and the state of the page."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def ask(self, expression: str) -> object:
        script = f"const p = document.getElementById('lr-range'); return {expression};"
        return self.browser.execute_script(script)  # type: ignore[no-untyped-call]

    def wait_until(self, expression: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 600, poll_frequency=0.05).until(
            lambda _: self.ask(f"!!({expression})"), f"never came true: {expression}"
        )

    def axis(self, name: str) -> tuple[float, float]:
        """Ends of an axis; on a logarithmic axis their exponents."""
        low, high = self.ask(f"p._fullLayout.{name}.range")  # type: ignore[misc]
        return low, high

    @property
    def panel(self) -> WebElement:
        return self.browser.find_element("css selector", ".nsewdrag")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse between two positions of the panel, in fractions from its lower left corner."""
        from selenium.webdriver import ActionChains

        box = self.panel.rect
        (x0, y0), (x1, y1) = (
            (round((x - 0.5) * box["width"]), round((0.5 - y) * box["height"])) for x, y in (start, end)
        )
        mouse = ActionChains(self.browser, duration=50).move_to_element_with_offset(self.panel, x0, y0).click_and_hold()
        mouse.move_by_offset((x1 - x0) // 2, (y1 - y0) // 2)
        mouse.move_by_offset(x1 - x0 - (x1 - x0) // 2, y1 - y0 - (y1 - y0) // 2).release().perform()

    def double_click_until(self, expression: str) -> None:
        """Repeat the double click, since on a busy machine the two clicks may be too far apart."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver import ActionChains
        from selenium.webdriver.support.ui import WebDriverWait

        for _ in range(100):
            ActionChains(self.browser).move_to_element(self.panel).double_click().perform()
            with contextlib.suppress(TimeoutException):
                WebDriverWait(self.browser, 3, poll_frequency=0.05).until(lambda _: self.ask(f"!!({expression})"))
                return
        raise AssertionError(f"no double click made it true: {expression}")

    def press(self, label: str) -> None:
        for button in self.browser.find_elements("css selector", ".updatemenu-button"):
            if button.text.strip() == label:
                button.click()
                return
        raise AssertionError(f"no button {label}")

    def legend(self) -> list[str]:
        return [item.text for item in self.browser.find_elements("css selector", ".legendtext")]

    def click_legend(self, label: str) -> None:
        index = self.legend().index(label)
        self.browser.find_elements("css selector", ".legendtoggle")[index].click()


def test_every_curve_and_mark_is_shown(plot: Page) -> None:
    assert plot.ask(NUM_PIECES) == 5, "four curves, one of them in two pieces"
    assert plot.ask("document.querySelectorAll('.shapelayer path').length") == 5
    assert sorted(plot.legend()) == sorted(
        [
            *(f"{kind}, seed {seed}" for seed in (4, 5) for kind in ("loss", "smoothed")),
            "suggestion 0.02",
            "interval 0.01 to 0.05",
            "steepest 0.01",
            "<i>valley</i> %{x} 0.3",
            "nothing: none",
            "own --model.lr 0.1",
        ]
    )
    assert plot.ask("p._fullLayout.xaxis.type") == "log"
    left, right = plot.axis("xaxis")
    assert (left, right) == pytest.approx(WHOLE, abs=0.15)
    bottom, top = plot.axis("yaxis")
    assert bottom < 1.6 < 2.5 < top < 8, "the fall stays readable, whatever the second sweep does"
    box = plot.panel.rect
    for index, name, lr in ((1, "suggestion 0.02", 0.02), (4, "own --model.lr 0.1", 0.1)):
        assert plot.ask(f"p._fullLayout.shapes[{index}].name") == name
        line = f"document.querySelector('.shapelayer path[data-index=\"{index}\"]').getBoundingClientRect()"
        place = plot.ask(f"{line}.left + {line}.width / 2")
        assert isinstance(place, int | float)
        assert (place - box["x"]) / box["width"] == pytest.approx((math.log10(lr) - left) / (right - left), abs=0.01)


def test_markup_in_names_is_escaped(plot: Page) -> None:
    assert plot.browser.title == TITLE
    assert plot.ask("document.querySelector('.gtitle').textContent") == TITLE
    assert plot.ask("document.querySelectorAll('#lr-range b, #lr-range i').length") == 0


def test_dragging_a_box_zooms_and_a_double_click_resets(plot: Page) -> None:
    before = plot.axis("xaxis"), plot.axis("yaxis")
    plot.drag((0.3, 0.1), (0.6, 0.5))
    plot.wait_until(f"p._fullLayout.xaxis.range[0] > {before[0][0] + 0.5}")
    for name, (low, high), (start, end) in zip(("xaxis", "yaxis"), before, ((0.3, 0.6), (0.1, 0.5)), strict=True):
        length = high - low
        assert plot.axis(name) == pytest.approx((low + start * length, low + end * length), abs=0.01 * length)
    plot.double_click_until(f"Math.abs(p._fullLayout.xaxis.range[0] - {before[0][0]}) < 1e-6")
    assert (plot.axis("xaxis"), plot.axis("yaxis")) == (pytest.approx(before[0]), pytest.approx(before[1]))


def test_the_buttons_change_the_axes_and_a_double_click_still_resets(plot: Page) -> None:
    left, right = plot.axis("xaxis")
    bottom, top = plot.axis("yaxis")
    plot.press("linear x")
    plot.wait_until("p._fullLayout.xaxis.type === 'linear'")
    plot.press("log y")
    plot.wait_until("p._fullLayout.yaxis.type === 'log'")
    assert plot.axis("xaxis")[1] == pytest.approx(10**right)
    assert plot.axis("yaxis") == pytest.approx((math.log10(bottom), math.log10(top)))
    whole = plot.axis("xaxis")
    plot.drag((0.5, 0.2), (0.75, 0.8))
    plot.wait_until(f"p._fullLayout.xaxis.range[0] > {whole[1] / 3}")
    plot.double_click_until(f"p._fullLayout.xaxis.range[0] < {whole[1] / 10}")
    assert plot.axis("xaxis") == pytest.approx(whole)
    plot.press("log x")
    plot.wait_until("p._fullLayout.xaxis.type === 'log'")
    assert plot.axis("xaxis") == pytest.approx((left, right))


def test_a_change_of_the_axis_keeps_the_zoom(plot: Page) -> None:
    whole = plot.axis("xaxis")
    plot.drag((0.4, 0.2), (0.6, 0.8))
    plot.wait_until(f"p._fullLayout.xaxis.range[0] > {whole[0] + 0.5}")
    zoomed = plot.axis("xaxis")
    plot.press("linear x")
    plot.wait_until("p._fullLayout.xaxis.type === 'linear'")
    assert plot.axis("xaxis") == pytest.approx([10**end for end in zoomed])
    plot.press("log x")
    plot.wait_until("p._fullLayout.xaxis.type === 'log'")
    plot.double_click_until(f"Math.abs(p._fullLayout.xaxis.range[0] - {whole[0]}) < 1e-6")


def test_the_whole_loss_can_be_shown(plot: Page) -> None:
    _, cut = plot.axis("yaxis")
    plot.press("whole loss")
    plot.wait_until("p._fullLayout.yaxis.range[1] > 9e5")
    plot.press("cut off")
    plot.wait_until(f"Math.abs(p._fullLayout.yaxis.range[1] - {cut}) < 1e-6")


def test_a_click_in_the_legend_hides_a_curve_and_another_shows_it(plot: Page) -> None:
    plot.click_legend("smoothed, seed 4")
    plot.wait_until("p._fullData[1].visible === 'legendonly'")
    plot.wait_until(f"{NUM_PIECES} === 4")
    plot.click_legend("smoothed, seed 4")
    plot.wait_until(f"p._fullData[1].visible === true && {NUM_PIECES} === 5")


@pytest.mark.parametrize("label", ["suggestion 0.02", "interval 0.01 to 0.05", "steepest 0.01", "own --model.lr 0.1"])
def test_a_click_in_the_legend_hides_a_mark(plot: Page, label: str) -> None:
    plot.click_legend(label)
    plot.wait_until("document.querySelectorAll('.shapelayer path').length === 4")
    assert plot.ask(f"p._fullLayout.shapes.find(shape => shape.name === '{label}').visible") == "legendonly"


def test_pointing_at_a_curve_shows_its_values(plot: Page) -> None:
    from selenium.webdriver import ActionChains

    step = 40
    (left, right), (bottom, top) = plot.axis("xaxis"), plot.axis("yaxis")
    loss = plot.ask(f"p._fullData[1].y[{step}]")
    assert isinstance(loss, float)
    box = plot.panel.rect
    x = ((math.log10(LRS[step]) - left) / (right - left) - 0.5) * box["width"]
    y = (0.5 - (loss - bottom) / (top - bottom)) * box["height"]
    ActionChains(plot.browser).move_to_element_with_offset(plot.panel, round(x), round(y)).perform()
    plot.wait_until("document.querySelector('.hoverlayer .hovertext')")
    text = plot.browser.find_element("css selector", ".hoverlayer .hovertext").text
    for words in (f"step {step}", f"learning rate {LRS[step]:.4g}", f"smoothed {loss:.5g}", "seed ", "loss "):
        assert words in text


def test_no_button_uploads_data(plot: Page) -> None:
    titles = [b.get_attribute("data-title") for b in plot.browser.find_elements("css selector", ".modebar-btn")]
    assert any("Zoom" in (title or "") for title in titles)
    assert not [title for title in titles if title and ("hare" in title or "loud" in title or "Produced" in title)]
