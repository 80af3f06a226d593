"""The command in process, its errors, and the callback."""

from __future__ import annotations

import io
import itertools
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_cifar import cli
from lightning_cifar.plots.pages import microscope_page

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("microscope") / "run"
    args = [
        *("fit", "--model", "LeNet", "--data", "SyntheticDataModule", "--data.num_train", "64", "--data.num_val", "40"),
        *("--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--keep_every_n_epochs", "1", "--run_dir", str(folder), "--trainer.callbacks+=Microscope"),
        *("--trainer.callbacks.num_images", "2"),
    ]
    with redirect_stdout(io.StringIO()):
        assert cli.main(args) == 0
    return folder


def data_of(page: Path) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert found
    data: dict[str, object] = json.loads(found[1])
    return data


def titles(data: dict[str, object]) -> list[str]:
    return [state["title"] for state in data["states"]]  # type: ignore[attr-defined]


def test_the_callback_writes_a_page_of_the_last_epoch(run: Path) -> None:
    data = data_of(run / "microscope.html")
    assert titles(data) == ["after epoch 2"]
    assert len(data["images"]) == 2  # type: ignore[arg-type]
    assert data["classes"][:2] == ["disc", "ring"]  # type: ignore[index]


def test_kept_states_and_validation_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tqdm.std.time", lambda: 0.0)
    out = tmp_path / "page.html"
    assert cli.main(["microscope", str(run), "--epochs", "all", "--num_images", "3", "--out", str(out)]) == 0
    data = data_of(out)
    assert titles(data) == ["after epoch 1", "after epoch 2"]
    assert [image["name"] for image in data["images"]] == [f"validation image {i}" for i in (1, 2, 3)]  # type: ignore[attr-defined]
    assert {"1.top", "1.means", "occlusion"} <= {*data["shared"]}  # type: ignore[misc]
    assert "on the validation images" in out.read_text()
    captured = capsys.readouterr()
    assert re.search(r"^microscope: .*page\.html \(\d\.\d MB, \d+ s\)$", captured.out, re.MULTILINE)
    assert "windows" not in captured.err, "no time has passed"


def test_slow_passes_show_their_progress_and_large_maps_leave_out_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=20)  # each look at the clock takes 20 s
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    monkeypatch.setattr(microscope_page, "MOST_VALUES", 1)
    assert cli.main(["microscope", str(run), "--num_images", "3", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert re.search(r"100%.* 40/40 \[.* validation images/s\]", captured.err)
    assert re.search(r"100%.* 625/625 \[.* windows/s\]", captured.err)
    said = re.search(r"^left out: (2 of 3 images \([\d,]+ values of maps in each\))$", captured.out, re.MULTILINE)
    assert said
    assert f"Left out to stay below 40.0 MB: {said[1]}." in (tmp_path / "microscope.html").read_text()
    assert len(data_of(tmp_path / "microscope.html")["images"]) == 1  # type: ignore[arg-type]


def test_own_images_without_the_data(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_cifar.data import SyntheticDataModule

    def missing(self: object) -> None:
        raise FileNotFoundError("there are no data")

    monkeypatch.setattr(SyntheticDataModule, "val_dataloader", missing)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "<b>.png")
    args = ["microscope", str(run), "--images", str(tmp_path), "--out", str(tmp_path / "own.html")]
    assert cli.main(args) == 0
    data = data_of(tmp_path / "own.html")
    assert data["images"] == [{"name": "<b>.png", "label": None}]
    assert not any(name.endswith((".top", ".means")) for name in data["shared"])  # type: ignore[attr-defined]
    assert cli.main(["microscope", str(run), "--out", str(tmp_path)]) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere"], r"there is no checkpoint nowhere: pass the folder of a run"),
        (["RUN", "--epochs", "1,7"], r"--epochs: RUN has no state of epoch 7: it kept 1, 2\."),
        (["RUN", "--epochs", "some"], r"argument --epochs: 'some' must be last, all, or numbers such as 1,5,10"),
        (
            ["RUN", "--images", "RUN/config.yaml"],
            r"--images .* contains no image: config\.yaml is skipped: not an image",
        ),
        (["RUN", "--window", "40"], r"`window` \(=40 x 40\) does not fit into images of 32 x 32 pixels: use a smaller"),
        (["RUN", "--num_images", "1"], r"MB without kernels, above the limit of 0\.1 MB: use fewer images \(--num"),
    ],
    ids=["no checkpoint", "not kept", "no number", "no images", "window", "too large"],
)
def test_errors_are_one_line_with_the_fix(
    args: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = {**(microscope_page.microscope_html.__kwdefaults__ or {}), "limit": 100_000}
    monkeypatch.setattr(microscope_page.microscope_html, "__kwdefaults__", defaults)
    before = (run / "microscope.html").read_bytes()
    assert cli.main(["microscope", *(each.replace("RUN", str(run)) for each in args)]) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("lightning-cifar: error: ")]
    assert re.search(said.replace("RUN", re.escape(str(run))), line)
    assert (run / "microscope.html").read_bytes() == before
