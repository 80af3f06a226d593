"""The page in a real browser, opened from a file: what it shows is what the network computes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cifar.analysis.microscope.content import Content, collect
from lightning_cifar.plots import microscope_html

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WINDOW = (1300, 900)  # of the browser fixture
CLASSES = ("<b>cat</b>", "dog", "a bird")
NAMES = ("</script><script>document.title = 'taken over'</script>", "two")


class Everything(nn.Module):
    """All operations whose arithmetic the page contains."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same", dilation=2), nn.BatchNorm2d(4), nn.ReLU())
        self.right = nn.Conv2d(3, 2, (1, 3), padding=(0, 1), bias=False)
        self.grouped = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=3)
        self.hidden = nn.Sequential(nn.Linear(8 * 9, 7), nn.BatchNorm1d(7), nn.Sigmoid(), nn.Dropout())
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), torch.tanh(self.right(x) * 2 - 1)], 1)
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        x = F.gelu(F.pad(self.grouped(x), (0, 0, 0, 0, 1, 1)) + shortcut)
        x = F.silu(F.avg_pool2d(F.max_pool2d(x, 3, 1), 3, 2, 1, count_include_pad=False))
        x = F.adaptive_avg_pool2d(x, 3).flatten(1)
        return self.head(self.hidden(x))


class Example(NamedTuple):
    model: nn.Module
    images: Tensor
    content: Content


@pytest.fixture(scope="module")
def example() -> Example:
    torch.manual_seed(0)
    model, earlier = Everything().eval(), Everything().eval()
    for norm in (model.left[1], model.hidden[1]):
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    batches = [(torch.randn(12, 3, 16, 20), torch.arange(12) % 3)]
    images = torch.randn(2, 3, 16, 20)
    content = collect(model, "epoch 2", earlier=[("epoch 1", earlier)], images=images, batches=lambda: batches)
    return Example(model, images, content)


def write(path: Path, content: Content, **settings: Any) -> list[str]:
    pixels = (0.5,) * 3
    content = content._replace(labels=[0, None])
    written = microscope_html(
        content, network=NAMES[0], classes=CLASSES, names=NAMES, mean=pixels, std=pixels, **settings
    )
    path.write_text(written.text, encoding="utf-8")
    return written.left_out


def open_page(browser: Chrome, path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    for log in ("browser", "performance"):  # earlier entries, such as the start page
        browser.get_log(log)  # type: ignore[no-untyped-call]
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(lambda _: ask(browser, "document.documentElement.dataset.ready"))


@pytest.fixture
def page(browser: Chrome, example: Example, tmp_path: Path) -> Iterator[Chrome]:
    """Afterwards the browser must have no errors and no requests for other files."""
    path = tmp_path / "page #1.html"
    write(path, example.content)
    open_page(browser, path)
    yield browser
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
    assert severe == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]  # type: ignore[no-untyped-call]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert path.as_uri() in sent, "the log of requests must see something"
    assert [url for url in sent if url != path.as_uri() and not url.startswith("data:")] == []


def ask(browser: Chrome, expression: str, *args: object) -> Any:
    return browser.execute_script(f"return {expression};", *args)  # type: ignore[no-untyped-call]


def test_the_arithmetic_of_random_pixels_adds_up_to_the_values_of_torch(page: Chrome, example: Example) -> None:
    draw = random.Random(0)
    layers = example.content.layers
    chosen, expected = [], []
    for number, layer in [*enumerate(layers)] * 6:
        state, image = draw.randrange(2), draw.randrange(2)
        c, y, x = (draw.randrange(size) for size in layer["shape"])
        chosen.append({"state": state, "image": image, "layer": number, "channel": c, "pixel": [y, x]})
        expected.append(float(example.content.states[state][1][f"{number}.values"][image, c, y, x]))
    script = """arguments[0].map(change => {
        select({layer: change.layer}); select(change);
        return [...document.querySelectorAll("#sum td.number")].map(cell => Number(cell.textContent)); })"""
    shown = ask(page, script, chosen)
    for change, lines, value in zip(chosen, shown, expected, strict=True):
        assert len(lines) > (layers[change["layer"]]["kind"] != "image"), "the sum and the value in the map"
        for line in lines[-2:]:
            assert line == pytest.approx(value, abs=1e-4, rel=1e-5), (change, layers[change["layer"]]["title"])
    kinds = {(layer["kind"], *(step["kind"] for step in layer["steps"])) for layer in layers}
    assert kinds >= {("conv", "norm", "relu"), ("dense", "norm", "sigmoid"), ("add", "gelu"), ("concat",), ("max",)}


@pytest.mark.parametrize("pointer", ["mouse", "touch"])
def test_dragging_shows_the_probabilities_of_the_covered_image(page: Chrome, example: Example, pointer: str) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    device = PointerInput(pointer, pointer)  # type: ignore[no-untyped-call]
    canvas = page.find_element("id", "covered")
    height, width = example.images.shape[2:]
    for dx, dy in ((-60, -40), (30, 50), (5, 0)):
        actions = ActionChains(page, devices=[device]).move_to_element(canvas)
        actions.click_and_hold().move_by_offset(dx, dy).release().perform()
        p, q = ask(page, "selected.window")
        (top, bottom), (left, right) = example.content.windows[0][p], example.content.windows[1][q]
        scale = canvas.size["width"] / width
        assert abs((top + bottom) / 2 - (height / 2 + dy / scale)) <= 2, "the window follows the mouse"
        assert abs((left + right) / 2 - (width / 2 + dx / scale)) <= 2
        image = example.images[:1].clone()
        image[..., top:bottom, left:right] = image.mean((2, 3), keepdim=True)
        with torch.no_grad():
            probabilities = example.model(image).softmax(1)[0]
        texts = ask(page, "[...document.querySelectorAll('#bars .number')].map(cell => cell.textContent)")
        assert texts == [f"{100 * float(value):.1f} %" for value in probabilities]
    with torch.no_grad():
        best = int(example.model(example.images[:1]).argmax())
    assert ask(page, "document.getElementById('target').selectedOptions[0].textContent") == CLASSES[best]
    before = ask(page, "document.getElementById('heat').toDataURL()")
    ask(page, "select({target: arguments[0]})", (best + 1) % 3)
    assert ask(page, "document.getElementById('heat').toDataURL()") != before


def test_the_slider_changes_kernels_maps_and_probabilities(page: Chrome) -> None:
    from selenium.webdriver import Keys

    seen = """["kernel", "map"].map(id => document.getElementById(id).toDataURL()).concat(
        document.getElementById("truth").textContent, document.getElementById("state-name").textContent)"""
    after = ask(page, seen)
    slider = page.find_element("id", "state")
    slider.send_keys(Keys.ARROW_LEFT)
    before = ask(page, seen)
    assert (before[3], after[3]) == ("epoch 1", "epoch 2")
    assert all(one != other for one, other in zip(before, after, strict=True))
    slider.send_keys(Keys.ARROW_RIGHT)
    assert ask(page, seen) == after


def test_a_click_or_the_keys_select_images_channels_and_pixels(page: Chrome) -> None:
    from selenium.webdriver import ActionChains, Keys

    canvas = page.find_elements("css selector", ".layer canvas")[1]
    place = "(() => { const {size, columns} = boxes[1]; return [size.across, size.down, columns]; })()"
    across, down, columns = ask(page, place)
    row, column = divmod(3, columns)
    box = canvas.size
    offset = (column + 0.5) * across - box["width"] / 2, (row + 0.5) * down - box["height"] / 2
    ActionChains(page).move_to_element_with_offset(canvas, *map(int, offset)).click().perform()
    assert ask(page, "[selected.layer, selected.channel]") == [1, 3]
    canvas.send_keys(Keys.ARROW_LEFT if columns > 1 else Keys.ARROW_UP)
    assert ask(page, "selected.channel") == 2
    assert "channel 2" in page.find_element("id", "channel-name").text
    (y, x) = ask(page, "selected.pixel")
    page.find_element("id", "map").send_keys(Keys.ARROW_DOWN + Keys.ARROW_RIGHT)
    assert ask(page, "selected.pixel") == [y + 1, x + 1]
    assert f"row {y + 1}, column {x + 1}" in page.find_element("id", "pixel-name").text
    page.find_element("css selector", "#images button").send_keys(Keys.ARROW_RIGHT)
    assert ask(page, "selected.image") == 1
    assert page.find_element("id", "truth").text.startswith("two: predicted ")


def test_patches_names_and_narrow_windows(page: Chrome, example: Example) -> None:
    assert page.title == f"Microscope: {NAMES[0]}"
    assert ask(page, "document.scripts.length") == 6
    ask(page, "select({layer: 1, channel: 0})")
    texts = ask(page, "[...document.querySelectorAll('#patches figure')].map(figure => figure.textContent)")
    top = example.content.shared["1.top"][:, 0]
    assert texts == [f"{CLASSES[example.content.tile_labels[int(tile)]]}{value:#.6g}" for value, tile, _ in top]
    for width in (380, 1300):
        page.set_window_size(width, 900)
        assert ask(page, "document.documentElement.scrollWidth <= window.innerWidth")


def test_selections_draw_everything_that_depends_on_them(page: Chrome, example: Example) -> None:
    """After each one, drawing all again changes nothing."""
    draw, layer = random.Random(1), 1
    seen = """[...document.querySelectorAll("#panels canvas, .layer[aria-current=true] canvas")]
        .map(canvas => canvas.toDataURL()).concat(document.body.innerText)"""
    script = (
        f"select(arguments[0]); const before = {seen}; select({{...selected, first: true}}); return [before, {seen}];"
    )
    for name in ["layer", "channel", "pixel", "state", "image", "window", "target"] * 4:
        layer = draw.randrange(len(example.content.layers)) if name == "layer" else layer
        count, *size = example.content.layers[layer]["shape"]
        places = {"pixel": size, "window": [len(spans) for spans in example.content.windows]}
        ends = {"layer": layer + 1, "channel": count, "state": 2, "image": 2, "target": 3}
        value = [draw.randrange(end) for end in places[name]] if name in places else draw.randrange(ends[name])
        before, after = page.execute_script(script, {name: layer if name == "layer" else value})  # type: ignore[no-untyped-call]
        assert before == after, name


def test_layers_are_drawn_when_they_come_into_view(page: Chrome, example: Example) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    page.set_window_size(380, 900)
    try:
        ask(page, "select({image: 1})")
        last = "boxes[boxes.length - 1]"
        assert ask(page, f"{last}.stale")
        picture = f"{last}.canvas.toDataURL()"
        before = ask(page, picture)
        ask(page, "(document.getElementById('network').scrollLeft = 1e5)")
        WebDriverWait(page, 60).until(lambda _: not ask(page, f"{last}.stale"))
        after = ask(page, picture)
        ask(page, "drawLayer(boxes.length - 1)")
        assert before != after == ask(page, picture)
    finally:
        page.set_window_size(*WINDOW)


def test_the_range_of_a_large_image(page: Chrome) -> None:
    """More values than a function takes as arguments."""
    values = "Float32Array.from({length: 3 * 224 * 224}, (_, i) => i % 7 - 3)"
    assert ask(page, f"[...rangeOf({values}), limitOf({values}), limitOf([], 1)]") == [-3, 3, 3, 1]


def test_a_page_that_is_too_large_leaves_out_the_largest_kernels(
    browser: Chrome, example: Example, tmp_path: Path
) -> None:
    path = tmp_path / "small.html"
    assert write(path, example.content) == []
    limit = path.stat().st_size - 1000
    (said,) = write(path, example.content, limit=limit)
    assert said == "the kernels of hidden.0 (504 weights, 0.0 MB)"
    assert f"Left out to stay below {limit / 1e6:.1f} MB: {said}." in path.read_text()
    assert path.stat().st_size < limit
    open_page(browser, path)
    number = next(i for i, layer in enumerate(example.content.layers) if layer["name"] == "hidden.0")
    ask(browser, "select({layer: arguments[0]})", number)
    assert "kernels of this layer were left out" in browser.find_element("id", "pixel-name").text
    assert not browser.find_element("id", "kernels").is_displayed()
    with pytest.raises(ValueError, match=r"^the page has 0\.\d MB without kernels, above the limit of 0\.0 MB$"):
        write(path, example.content, limit=100)
