"""The page in a real browser, opened from a file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pages import opened
from PIL import Image

from lightning_cifar.plots import Explained, PagePicture, explain_html

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WINDOW = (1200, 800)  # of the browser fixture
EVIL = "<img src=x onerror=alert(1)>.png"
TITLE = "</title><script>document.title = 'taken over'</script> & co"


def picture(caption: str, width: int) -> PagePicture:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 300), "navy").save(buffer, "png")
    return PagePicture(caption, buffer.getvalue())


@pytest.fixture
def page(browser: Chrome, tmp_path: Path) -> Iterator[Chrome]:
    """Two images with wide pictures; afterwards the browser must have no errors and no requests for other files."""
    images = [
        Explained(name, ["cat", "93 %"], picture(name, 1700), [picture(f"maps of {name}", 600 + i) for i in range(2)])
        for name in (EVIL, "b" * 200)
    ]
    text = explain_html(
        images, title=TITLE, facts=[("checkpoint", EVIL)], columns=["predicted", "probability*"], notes=[EVIL]
    )
    path = tmp_path / "page #1.html"
    path.write_text(text, encoding="utf-8")
    with opened(browser, path.as_uri()):
        yield browser


def ask(browser: Chrome, expression: str) -> object:
    return browser.execute_script(f"return {expression};")  # type: ignore[no-untyped-call]


def test_every_picture_is_shown_and_markup_is_escaped(page: Chrome) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    assert ask(page, "[...document.images].map(image => image.naturalWidth)") == [1700, 600, 601] * 2
    with pytest.raises(NoAlertPresentException):
        page.switch_to.alert.text  # noqa: B018 - looking is the test
    assert page.title == TITLE
    assert ask(page, "document.querySelector('h1').textContent") == TITLE
    assert ask(page, "document.querySelector('h2').textContent") == EVIL
    assert ask(page, "document.scripts.length") == 0


def test_the_page_fits_the_window_with_long_names(page: Chrome) -> None:
    assert ask(page, "document.documentElement.scrollWidth <= window.innerWidth")
    assert ask(page, "document.images[0].width < window.innerWidth")


def test_feature_maps_open_at_a_click(page: Chrome) -> None:
    shown = "document.images[1].checkVisibility({contentVisibilityAuto: true})"
    assert not ask(page, shown)
    page.find_element("css selector", "summary").click()
    assert ask(page, shown)
    assert ask(page, "document.images[1].getBoundingClientRect().height > 100")


def test_the_table_leads_to_the_images(page: Chrome) -> None:
    page.find_elements("css selector", "table.all a")[1].click()
    assert ask(page, "location.hash") == "#image-2"
    assert ask(page, "document.querySelector('#image-2').getBoundingClientRect().top < window.innerHeight")
