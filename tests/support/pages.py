"""Pages in a real browser. Pytest makes this folder importable by its setting ``pythonpath``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@contextmanager
def opened(browser: Chrome, address: str) -> Iterator[None]:
    """Open a page from a file; afterwards the browser must have no errors and no requests for other files."""
    browser.get("about:blank")
    for log in ("browser", "performance"):  # earlier entries, such as the start page
        browser.get_log(log)  # type: ignore[no-untyped-call]
    browser.get(address)
    yield
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
    assert severe == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]  # type: ignore[no-untyped-call]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert address in sent, "the log of requests must see something"
    assert [url for url in sent if url != address and not url.startswith(("data:", "blob:"))] == []
    assert not [m for m in messages if m["method"] == "Network.webSocketCreated"]
