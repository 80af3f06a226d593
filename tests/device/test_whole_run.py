"""A complete training with all callbacks, and the analysis functions, on a device whose tensors have no values."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_cifar import callbacks, models
from lightning_cifar.analysis.activations import summarise
from lightning_cifar.analysis.classification import confusion_matrix, score_counts
from lightning_cifar.analysis.embedding import features_and_outputs
from lightning_cifar.analysis.feature_maps import default_layers, feature_maps
from lightning_cifar.analysis.filters import find_filters
from lightning_cifar.analysis.occlusion.maps import occlusion_map
from lightning_cifar.data import SyntheticDataModule


class FakeAccelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        pass


class FakeStrategy(SingleDeviceStrategy):
    def model_to_device(self) -> None:
        """Do nothing: the module is built on the device, and fake tensors are not moved."""


class StepReads(pl.Callback):
    """Waits for the device between the first and the last hook of a step. It is the last callback."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.steps: list[list[str]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.device.clear()

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps.append(self.device.waits)
        self.device.clear()


QUIET: dict[str, dict[str, Any]] = {
    "NonFiniteGuard": {},
    "EMA": {},
    "ClassAccuracy": {},
    "FeatureMaps": {},
    "FilterImages": {},
    "PredictionGrid": {},
    "SampleGrid": {},
    "WeightHistograms": {},
    "LayerTable": {},
    "Throughput": {},
}
MEASURING: dict[str, dict[str, Any]] = {
    "ActivationSnapshots": {"num_samples": 4},
    "EmbeddingProjector": {"num_images": 4},
    "LossCurves": {},
    "Microscope": {},
    "OcclusionMaps": {"images": [0], "window": 16, "every_n_epochs": 1},
    "PredictionTable": {},
    "SWAWeightAveraging": {"start": 0.0},
    "Sharpness": {"num_samples": 4, "max_products": 2},
    "WeightGIF": {},
    "WeightTrajectory": {},
}


def test_all_callbacks_are_covered() -> None:
    """FitCurves needs a regressor; fake tensors can neither be saved by ExactResume nor be copied by LRRangeFinder."""
    assert {*QUIET, *MEASURING, "ExactResume", "FitCurves", "LRRangeFinder"} == {*callbacks.__all__}


@pytest.mark.parametrize("device", ["meta"], indirect=True)
@pytest.mark.parametrize(("settings", "silent"), [(QUIET, (2, 3, 5, 6)), (MEASURING, (2, 3, 5))], ids=["quiet", "all"])
def test_a_training_with_all_callbacks(
    settings: dict[str, dict[str, Any]],
    silent: tuple[int, ...],
    device: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first step makes what lasts for the whole training, the fourth is logged, and the last may be measured."""
    monkeypatch.setattr(models.Classifier, "to", lambda self, device: self)
    monkeypatch.setattr(models.Classifier, "cpu", lambda self: self)
    # A picture of values on the CPU: those of a device without values do not fit together.
    monkeypatch.setattr(callbacks.ActivationSnapshots, "_write", lambda *_: None)
    monkeypatch.setattr(callbacks.SWAWeightAveraging, "averages", True)  # a counter that is read is 0
    for name in ("occlusion_maps", "activation_snapshots", "embedding_projector"):  # a comparison that is read is true
        monkeypatch.setattr(f"lightning_cifar.callbacks.{name}.are_probabilities", lambda *_, **__: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has none
    monkeypatch.chdir(tmp_path)
    model = device.build(lambda: models.LeNet(lr=0.1))
    steps = StepReads(device)
    trainer = pl.Trainer(
        max_epochs=1,
        strategy=FakeStrategy(device.device, accelerator=FakeAccelerator()),
        log_every_n_steps=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        callbacks=[*(getattr(callbacks, name)(**each) for name, each in settings.items()), steps],
    )
    data = SyntheticDataModule(num_train=24, num_val=8, num_test=8, batch_size=4, augment=["flip", "crop"])
    trainer.fit(model, data)
    assert len(steps.steps) == 6
    assert {number: steps.steps[number - 1] for number in silent} == {number: [] for number in silent}
    assert device.doubles == []


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_analysis(device: Any) -> None:
    model = device.build(lambda: models.LeNet(lr=0.1))
    images = torch.zeros(2, 3, 32, 32, device=device.device)
    labels = torch.zeros(2, dtype=torch.int64, device=device.device)
    maps = feature_maps(model, images, default_layers(model))
    assert all(value.device.type == device.device.type for value in maps.values())
    features, outputs = features_and_outputs(model, images)
    assert features.device.type == outputs.device.type == device.device.type
    assert find_filters(model).read(4).shape == (4, 3, 5, 5)
    summarise(outputs)
    confusion_matrix(labels, labels, 10)
    score_counts(labels, outputs.softmax(1))
    for mode in ("exact", "fast"):
        drops = occlusion_map(model, images, window=16, stride=8, mode=mode)  # type: ignore[arg-type]  # one of both
        assert drops.pixels.device.type == device.device.type
    assert device.doubles == []
