"""Each callback with each kind of user's module works, or reports in one line why not; and with each logger."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from lightning_cifar import callbacks

NAMES = sorted({*callbacks.__all__} - {"EMA"})  # which changes the weights at the end
KINDS = ("sorter", "dicts", "segmenter", "line", "forger", "reader")

PICTURES: dict[str, tuple[str, ...]] = {
    "ActivationSnapshots": ("activations.png", "activations_ridge.png", "activations_moments.png", "activations.gif"),
    "ClassAccuracy": ("confusion_val.png",),
    "FeatureMaps": ("feature_maps/{layer}/image_0/{when}.png",),
    "FilterImages": ("filters.png",),
    "FitCurves": ("fit_curves.png", "fit_curves_moments.png", "fit_curves.gif"),
    "LRRangeFinder": ("lr_range.png",),
    "LossCurves": ("loss_curves.png",),
    "OcclusionMaps": ("occlusion_maps/epoch_002.png",),
    "PredictionGrid": ("predictions_val.png", "mistakes_val.png"),
    "PredictionTable": ("predictions.png",),
    "SampleGrid": ("samples_train.png", "samples_val.png"),
    "Sharpness": ("sharpness.png",),
    "WeightGIF": ("weights.gif",),
}
TAGS = {
    "confusion_val": "confusion/val",
    "filters": "filters/stem.0",
    "loss_curves": "curves/loss_curves",
    "occlusion_maps": "occlusion_maps/val",
    "predictions_val": "predictions/val",
    "mistakes_val": "mistakes/val",
    "predictions": "predictions/predict",
    "samples_train": "samples/train",
    "samples_val": "samples/val",
    "sharpness": "curves/sharpness",
    "weights": "filters/weights",
}
TABLES = {
    "ActivationSnapshots": "activations.csv",
    "ClassAccuracy": "class_accuracy_val.csv",
    "FitCurves": "fit_curves.csv",
    "LRRangeFinder": "lr_range.csv",
    "PredictionGrid": "mistakes_val.csv",
    "PredictionTable": "predictions.csv",
    "Sharpness": "sharpness.csv",
}
DICTS = r"but they are dicts of pixels, kind: collate them to \(inputs, targets\)"
NO_FORWARD = r"cannot call Forger with the first part of a validation batch, .*: mat1 and mat2 .* or remove \w+"
NO_FILTERS = r"has no convolution"
NO_LOGITS = r"ClassAccuracy is disabled: validation_step must return the logits \(N, K\)"
NO_LABELS = r"PredictionGrid is disabled: batches must be \(images, labels\) with"
NO_IMAGES = r"is disabled: batches must be \(images, labels\) with images \(N, C, H, W\), C 1 or 3"
NO_PROBABILITIES = r"PredictionTable is disabled: predict_step must return probabilities \(N, K\)"
NO_POINTS = r"FitCurves needs batches of x \(N, 1\) and y \(N, 1\), not"
NO_CURVES = r"LossCurves found none of .*; the module logged nothing\. Pass the names"
NOT_IMAGES = r"needs batches that start with images \(N, C, H, W\), but they start with \(8, \d\)"

# What each says where it cannot work. All else works.
RAISED = {
    "ActivationSnapshots": {"dicts": DICTS, "forger": NO_FORWARD},
    "EmbeddingProjector": {"dicts": DICTS, "forger": NO_FORWARD},
    "FeatureMaps": {"dicts": DICTS, "line": NO_FILTERS, "forger": NO_FORWARD, "reader": NO_FILTERS},
    "FilterImages": {"line": NO_FILTERS, "reader": NO_FILTERS},
    "WeightGIF": {"line": NO_FILTERS, "reader": NO_FILTERS},
    "FitCurves": {"dicts": DICTS} | dict.fromkeys(("sorter", "segmenter", "forger", "reader"), NO_POINTS),
    "LRRangeFinder": {"forger": "needs automatic optimization, but this module uses manual"},
    "Microscope": {
        "dicts": DICTS,
        "segmenter": r"must return logits \(N, K\), not \(1, 5, 8, 8\)",
        "line": NOT_IMAGES,
        "forger": NO_FORWARD,
        "reader": NOT_IMAGES,
    },
    "OcclusionMaps": {
        "dicts": DICTS,
        "segmenter": r"The model must map \(2, 3, 8, 8\) to logits \(2, K\), but it returned \(2, 5, 8, 8\)",
        "line": NOT_IMAGES,
        "forger": NO_FORWARD,
        "reader": NOT_IMAGES,
    },
}
WARNED = {
    "ClassAccuracy": dict.fromkeys(("dicts", "segmenter", "line", "forger"), NO_LOGITS),
    "LayerTable": dict.fromkeys(KINDS, r"LayerTable is disabled: \w+ has no example_input_array\. Set it to one"),
    "LossCurves": dict.fromkeys(("sorter", "dicts", "segmenter", "line", "reader"), NO_CURVES),
    "PredictionGrid": {"segmenter": NO_LABELS} | dict.fromkeys(("dicts", "line", "forger", "reader"), NO_IMAGES),
    "PredictionTable": dict.fromkeys(("dicts", "segmenter", "line", "forger"), NO_PROBABILITIES),
    "SampleGrid": dict.fromkeys(("dicts", "line", "reader"), NO_IMAGES),
    "Sharpness": {
        "dicts": r"Sharpness is disabled: it needs batches \(inputs, targets, \.\.\.\) of tensors",
        "forger": r"Sharpness is disabled: it needs one network with one optimizer and automatic optimization",
    },
}
HOME = {"FitCurves": "line", "LossCurves": "forger"}  # where it works; the others with the sorter


def weights(module: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def unwatched() -> Callable[[Callable[[], dict[str, Tensor]], str], dict[str, Tensor]]:
    """Weights after a training without callbacks, computed once for each kind."""
    known: dict[str, dict[str, Tensor]] = {}

    def get(train: Callable[[], dict[str, Tensor]], kind: str) -> dict[str, Tensor]:
        if kind not in known:
            known[kind] = train()
        return known[kind]

    return get


@cache
def layer_of(kind: str) -> str:
    return {"sorter": "stem.0", "segmenter": "encoder"}[kind]


def check_pictures(folder: Path, name: str, kind: str = "sorter", *, drawn: bool = True) -> set[str]:
    """Check that each picture exists and, if it was drawn, is not blank; return their tags."""
    tags = set()
    for pattern in (
        () if (name, kind) == ("PredictionTable", "reader") else PICTURES.get(name, ())
    ):  # no images, no sheet
        for when in ("epoch_000", "epoch_002", "over_training") if "{when}" in pattern else ("",):
            path = pattern.format(layer=layer_of(kind) if "{layer}" in pattern else "", when=when)
            with Image.open(folder / "pictures" / path) as picture:
                assert np.ptp(np.asarray(picture.convert("L"))) > 50 or not drawn, path
                if path.endswith("gif"):
                    assert getattr(picture, "n_frames", 1) >= 2
            name_of_epoch = re.sub(r"/epoch_\d+$", "", path.rsplit(".", 1)[0])
            tags.add(TAGS.get(name_of_epoch, name_of_epoch))
    if name in TABLES:
        rows = list(csv.DictReader((folder / TABLES[name]).read_text().splitlines()))
        assert rows
        assert all(None not in row and None not in row.values() for row in rows)
    return tags


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_works_or_reports_why_not(name: str, kind: str, run: Any, kinds: Any, unwatched: Any, capsys: Any) -> None:
    def train() -> dict[str, Tensor]:
        torch.manual_seed(5)
        module = kinds[kind]()
        run.use(module, "fit")
        assert run.error is None
        return weights(module)

    expected = unwatched(train, kind)
    torch.manual_seed(5)
    run(name, kind)
    if name == "PredictionTable":
        run.go(run.trainer, run.module, "predict")
    if reason := RAISED.get(name, {}).get(kind):
        assert isinstance(run.error, ValueError), run.error
        assert re.search(reason, str(run.error))
        assert "\n" not in str(run.error)
        assert run.trainer.global_step == 0
        assert not run.files
        return
    assert run.error is None, run.error
    if reason := WARNED.get(name, {}).get(kind):
        (said,) = run.said
        assert re.search(reason, said)
        assert "\n" not in said
        assert not run.files
    else:
        assert not run.said
        check_pictures(run.folder, name, kind, drawn=False)
    if name == "ExactResume":
        assert run.files == {f"checkpoints/resume{part}.ckpt" for part in ("", ".previous")}
    if name == "Throughput":
        assert run.trainer.callback_metrics["throughput"] > 0
    trained = weights(run.module)
    assert trained.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in trained.items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in run.module.modules())


@pytest.mark.drawn
@pytest.mark.parametrize("logger", ["tensorboard and csv", "scalars only"])  # the other tests have none
@pytest.mark.parametrize("name", NAMES)
def test_loggers(name: str, logger: str, run: Any, kinds: Any, make_logger: Any) -> None:
    loggers = make_logger(logger)
    module = kinds[HOME.get(name, "sorter")]()
    module.example_input_array = module.samples[:1][0]
    watcher = run.make(name)
    run.use(watcher, module, "fit", logger=loggers)
    if name == "PredictionTable":
        run.go(run.trainer, module, "predict")
    assert run.error is None, run.error
    assert not run.said
    tags = check_pictures(run.folder, name)
    if logger == "tensorboard and csv":
        events = EventAccumulator(str(run.folder), size_guidance={"images": 0, "scalars": 0, "histograms": 0}).Reload()
        assert set(events.Tags()["images"]) == tags
        assert bool(events.Tags()["histograms"]) == (name in ("ActivationSnapshots", "WeightHistograms"))
    names = {"ClassAccuracy": "val/accuracy/0", "Sharpness": "train/sharpness", "Throughput": "throughput"}
    logged = names.get(name)
    if logged and logger == "tensorboard and csv":
        assert logged in events.Tags()["scalars"]
        assert any(row[logged] for row in csv.DictReader((run.folder / "metrics.csv").read_text().splitlines()))
    elif logged:
        assert loggers.seen[logged] >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_continued_run_has_the_same_bits(kind: str, run: Any, kinds: Any) -> None:
    torch.manual_seed(1)
    run("ExactResume", kind)
    whole = weights(run.module)
    torch.manual_seed(2)
    trainer = run.make_trainer(run.make("ExactResume"), max_epochs=2, default_root_dir=run.folder)
    module = kinds[kind]()
    loaders = run.loader(module, shuffle=True), run.loader(module)
    trainer.fit(module, *loaders, ckpt_path=run.folder / "checkpoints/resume.ckpt", weights_only=True)
    assert trainer.current_epoch == 2
    assert all(torch.equal(value, whole[name]) for name, value in weights(module).items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_not_finite_stops(kind: str, run: Any, kinds: Any) -> None:
    module = kinds[kind]()
    next(module.parameters()).register_hook(lambda gradient: gradient * torch.nan)
    run("NonFiniteGuard", module)
    assert isinstance(run.error, callbacks.non_finite_guard.NonFiniteError)
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
