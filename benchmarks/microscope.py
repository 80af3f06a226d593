"""Reaction time of microscope pages: medians of random selections of each kind in headless Chromium.

    lightning-cifar microscope RUN --out page.html
    python benchmarks/microscope.py page.html [other.html ...] [--rounds 2]

The time is from the start of a selection to the end of the frame that shows it. The pages are interleaved. Needs
Chromium and its driver.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --window-size=1400,900"

SELECTIONS = """
const done = arguments[0], pick = count => Math.floor(Math.random() * count);
const other = (now, count) => (now + 1 + pick(Math.max(1, count - 1))) % count;
const anyLayer = () => { select({layer: 1 + pick(page.layers.length - 1)}); return page.layers[selected.layer].shape; };
const kinds = {
  channel: () => { const [channels] = anyLayer(); return {channel: other(selected.channel, channels)}; },
  layer: () => ({layer: other(selected.layer, page.layers.length)}),
  pixel: () => { const [, height, width] = anyLayer(); return {pixel: [pick(height), pick(width)]}; },
  window: () => ({window: page.windows.map(places => pick(places.length))}),
  image: () => ({image: other(selected.image, page.images.length)}),
  class: () => ({target: pick(page.classes.length)}),
};
const frame = act => new Promise(resolve => requestAnimationFrame(() => {
  const begin = performance.now(), {port1, port2} = new MessageChannel();
  act();
  port1.onmessage = () => resolve(performance.now() - begin);
  port2.postMessage(0);
}));
(async () => {
  const times = {};
  for (const [kind, choose] of Object.entries(kinds)) {
    times[kind] = [];
    for (let i = 0; i < 30; i++) {
      const change = choose();
      await frame(() => {});
      await frame(() => {});
      times[kind].push(await frame(() => select(change)));
    }
  }
  done(times);
})();
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=2, help="of 30 selections of each kind")
    options = parser.parse_args()
    times: dict[Path, dict[str, list[float]]] = {page: {} for page in options.pages}
    with tempfile.TemporaryDirectory() as profile:
        settings = webdriver.ChromeOptions()
        settings.binary_location = shutil.which("chromium") or ""
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            settings.add_argument(flag)
        browser = webdriver.Chrome(settings, webdriver.ChromeService(shutil.which("chromedriver")))
        browser.set_script_timeout(600)
        for page in options.pages * options.rounds:
            browser.get(page.resolve().as_uri())
            WebDriverWait(browser, 120).until(
                lambda browser: browser.execute_script("return document.documentElement.dataset.ready")
            )
            for kind, found in browser.execute_async_script(SELECTIONS).items():
                times[page].setdefault(kind, []).extend(found)
        browser.quit()
    for page, kinds in times.items():
        print(page)
        for kind, found in kinds.items():
            print(f"  {kind:8} {statistics.median(found):5.1f} ms, at most {max(found):5.1f} ms, n = {len(found)}")


if __name__ == "__main__":
    main()
