"""The page contains the given pictures and texts, with escaped markup."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from lightning_cifar.plots import Explained, PagePicture, explain_html

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(**changes: object) -> Reader:
    given: dict[str, object] = {
        "images": [
            Explained(EVIL, ["cat", "93 %"], PagePicture("map", b"1"), [PagePicture(f"maps of {EVIL}", b"2", "webp")]),
            Explained("b.png", ["dog", "7 %"], PagePicture("more", b"3")),
        ],
        "title": f"2 images {EVIL}",
        "facts": [("checkpoint", EVIL)],
        "columns": ["predicted", "probability*"],
        "notes": [f"{EVIL} is left out"],
    }
    reader = Reader()
    reader.feed(explain_html(**(given | changes)))  # type: ignore[arg-type]
    return reader


def test_every_picture_is_embedded() -> None:
    pictures = [attributes for tag, attributes in read().tags if tag == "img"]
    kinds = [re.fullmatch(r"data:image/(\w+);base64,(.*)", picture["src"] or "") for picture in pictures]
    assert [(found[1], base64.b64decode(found[2])) for found in kinds if found] == [
        ("png", b"1"),
        ("webp", b"2"),
        ("png", b"3"),
    ]
    assert [picture["alt"] for picture in pictures] == ["map", f"maps of {EVIL}", "more"]


def test_markup_is_escaped() -> None:
    reader = read()
    assert not [tag for tag, _ in reader.tags if tag == "script"]
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    text = "".join(reader.words)
    assert text.count(EVIL) == 7, "two titles, a fact, a note, the table, a section and its maps"
    policy = next(attributes["content"] for tag, attributes in reader.tags if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_table_leads_to_the_sections() -> None:
    reader = read()
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    sections = [attributes["id"] for tag, attributes in reader.tags if tag == "section"]
    assert links == [f"#{section}" for section in sections] == ["#image-1", "#image-2"]
    assert [attributes.get("class") for tag, attributes in reader.tags if tag == "th"][-3:] == [None, None, "number"]
    assert "probability" in reader.words


def test_a_summary_of_another_length_raises() -> None:
    with pytest.raises(ValueError, match=r"the summary of 'b.png' has 2 entries, not 3"):
        read(images=[Explained("b.png", ["dog", "7 %"], PagePicture("more", b"3"))], columns=["a", "b", "c"])
