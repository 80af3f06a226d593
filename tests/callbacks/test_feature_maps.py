"""Feature maps are drawn at the right epochs, and the training does not change."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from lightning_cifar.callbacks import FeatureMaps, feature_maps

MakeTrainer = Callable[..., Trainer]


class Net(LightningModule):
    """Two convolutions with batch norm, dropout and an in-place ReLU, whose state a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Conv2d(4, 12, 2))
        self.head = nn.Linear(12 * 9, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.conv(images)).flatten(1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self(batch[0])

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


@pytest.fixture
def data(data: Any) -> Any:
    """Eleven images of 6 x 6 pixels, in three batches."""
    generator = torch.Generator().manual_seed(1)
    data.images = torch.rand(11, 3, 6, 6, generator=generator)
    data.mean, data.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return data


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    drawn: dict[str, Figure] = {}

    def keep(trainer: Trainer, name: str, figure: Figure, *, tag: str | None = None) -> None:
        assert name not in drawn
        drawn[name] = figure

    monkeypatch.setattr(feature_maps, "save_figure", keep)
    return drawn


def tiles(figure: Figure) -> np.ndarray:
    return np.stack([np.asarray(drawn.get_array()) for drawn in figure.axes[1].images])


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


class Watch(FeatureMaps):
    """Keeps the maps of image 0 of a plain forward pass."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected: list[np.ndarray] = []

    def _compute(self, trainer: Trainer, pl_module: Any, epoch: float | None, *, draw: bool) -> None:
        image = trainer.datamodule.images[:1]  # type: ignore[attr-defined]
        modes = [(layer, layer.training) for layer in pl_module.modules()]
        pl_module.eval()
        with torch.no_grad():
            convolved = pl_module.body[0](pl_module.conv(image)).relu()
            self.expected.append(pl_module.body[3](convolved)[0].numpy())
        for layer, training in modes:
            layer.training = training
        super()._compute(trainer, pl_module, epoch, draw=draw)


def test_values_and_places_over_a_training(data: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]) -> None:
    watch = Watch(layers=["body.3"], every_n_epochs=2)
    make_trainer(watch, max_epochs=5, num_sanity_val_steps=1).fit(Net(), data)
    folder = "feature_maps/body.3/image_0"
    assert list(figures) == [
        f"{folder}/{n}" for n in ("epoch_000", "epoch_002", "epoch_004", "epoch_005", "over_training")
    ]
    initial, *epochs = watch.expected
    assert len(epochs) == 6  # the last weights are looked at again
    for epoch in (0, 2, 4, 5):
        expected = [initial, *epochs][epoch]
        np.testing.assert_allclose(tiles(figures[f"{folder}/epoch_{epoch:03d}"]), expected, rtol=1e-4, atol=1e-6)
    sheet = tiles(figures[f"{folder}/over_training"])
    expected = np.concatenate([maps[:8] for maps in (initial, *epochs[:5])])
    np.testing.assert_allclose(sheet, expected, rtol=1e-3, atol=1e-4)
    assert not np.allclose(initial, epochs[-1], atol=1e-3)  # it did learn
    np.testing.assert_allclose(
        np.asarray(figures[f"{folder}/epoch_000"].axes[0].images[0].get_array()), data.images[0].movedim(0, -1)
    )
    assert texts(figures[f"{folder}/epoch_000"]).startswith("Net, validation image 0 (cat), before training body.3: 12")
    assert "epoch 4 (step 12)" in texts(figures[f"{folder}/epoch_004"])
    assert "over training" in texts(figures[f"{folder}/over_training"])
    assert "the first 8 of 12 maps" in texts(figures[f"{folder}/over_training"])


def test_layers_and_images_of_ones_choice(data: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]) -> None:
    callback = FeatureMaps(layers=["body.1", "conv", "conv"], images=(9, 4, 9), max_maps=3, columns=2)
    make_trainer(callback).fit(Net(), data)
    assert {name.rsplit("/", 1)[0] for name in figures} == {
        f"feature_maps/{layer}/image_{image}" for layer in ("body.1", "conv") for image in (4, 9)
    }
    assert [name for name in figures if "over" in name] == [
        f"feature_maps/{layer}/image_9/over_training" for layer in ("body.1", "conv")
    ]
    relu = figures["feature_maps/body.1/image_9/epoch_001"]
    assert len(relu.axes[1].images) == 3
    assert tiles(relu).min() == 0
    assert tiles(figures["feature_maps/conv/image_9/epoch_001"]).min() < 0  # although a ReLU works in place after it
    assert "image 9 (automobile)" in texts(relu)


def test_the_first_convolution_is_the_default(data: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]) -> None:
    make_trainer(FeatureMaps(every_n_epochs=1)).fit(Net(), data)
    assert [name.split("/")[1] for name in figures] == ["conv"] * 3  # the end is drawn once


@pytest.mark.filterwarnings("ignore:Found 1 module")
def test_the_training_is_the_same_with_and_without(data: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Shuffled:
        """Draws random numbers in the validation too."""

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in torch.randperm(11).split(4):
                yield data.images[batch], data.labels[batch]

        def __len__(self) -> int:
            return 3

    def train(*callbacks: FeatureMaps) -> tuple[dict[str, Tensor], Tensor, list[bool]]:
        net = Net()
        net.body[0].eval()  # a frozen batch norm
        torch.manual_seed(3)
        make_trainer(*callbacks, max_epochs=2).fit(net, Shuffled(), Shuffled())
        assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in net.modules())
        return net.state_dict(), torch.get_rng_state(), [layer.training for layer in net.modules()]

    plain, watched = train(), train(FeatureMaps(layers=["conv", "body.1"], every_n_epochs=1))
    assert all(torch.equal(value, watched[0][name]) for name, value in plain[0].items())
    assert torch.equal(plain[1], watched[1])
    assert plain[2] == watched[2]
    assert (tmp_path / "pictures/feature_maps/conv/image_0/epoch_002.png").is_file()


def test_files_and_loggers(data: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path, name="", version="")
    make_trainer(FeatureMaps(), logger=board, max_epochs=2).fit(Net(), data)
    names = ["epoch_000", "epoch_002", "over_training"]
    folder = tmp_path / "pictures/feature_maps/conv/image_0"
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.png" for name in names]
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("feature_maps/conv/image_0")] == [0, 5]
    assert [image.step for image in events.Images("feature_maps/conv/image_0/over_training")] == [5]
    pyplot = sys.modules.get("matplotlib.pyplot")  # torchmetrics may have loaded it
    assert pyplot is None or not pyplot.get_fignums()


def test_rows_stay_few_and_small(data: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]) -> None:
    callback = FeatureMaps(layers=["body.3"], every_n_epochs=100)
    make_trainer(callback, max_epochs=25, limit_val_batches=1, limit_train_batches=1).fit(Net(), data)
    rows = callback.state_dict()["rows"]
    assert isinstance(rows, list)
    epochs = [row["epoch"] for row in rows]
    assert len(epochs) == 10
    assert (epochs[0], epochs[-1]) == (0, 25)
    maps = [row["maps"]["body.3"] for row in rows]
    assert {(tuple(value.shape), value.dtype) for value in maps} == {((8, 3, 3), torch.float16)}
    assert all(value.untyped_storage().nbytes() == 8 * 9 * 2 for value in maps)
    labels = [text.get_text() for text in figures["feature_maps/body.3/image_0/over_training"].axes[1].texts]
    assert labels[-1] == "epoch 25"
    assert sum(label.startswith("epoch") for label in labels) == 9


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`", "ignore:You're resuming from a checkpoint")
@pytest.mark.parametrize("period", [{"every_n_train_steps": 6}, {"every_n_train_steps": 4}, {"every_n_epochs": 2}])
def test_a_resumed_run_continues_its_rows(
    data: Any, make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, period: dict[str, int]
) -> None:
    monkeypatch.setattr(feature_maps, "save_figure", lambda *_, **__: None)
    keep = ModelCheckpoint(tmp_path, filename="kept", save_top_k=1, **period)
    make_trainer(FeatureMaps(), keep, max_epochs=2, enable_checkpointing=True).fit(Net(), data)
    resumed = FeatureMaps()
    make_trainer(resumed, max_epochs=4).fit(Net(), data, ckpt_path=keep.best_model_path, weights_only=True)
    unbroken = FeatureMaps()
    make_trainer(unbroken, max_epochs=4).fit(Net(), data)
    rows, expected = resumed._rows, unbroken._rows
    assert [(row["epoch"], row["step"]) for row in rows] == [(epoch, 3 * epoch) for epoch in range(5)]
    assert torch.equal(rows[0]["maps"]["conv"], expected[0]["maps"]["conv"])
    # Another training with the same callback begins anew.
    net = Net()
    nn.init.zeros_(net.conv.weight)
    make_trainer(resumed, max_epochs=1).fit(net, data)
    assert [row["epoch"] for row in resumed._rows] == [0, 1]
    assert resumed._rows[0]["maps"]["conv"][0].unique().numel() == 1


def test_a_training_that_ends_within_an_epoch(data: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]) -> None:
    make_trainer(FeatureMaps(), max_epochs=-1, max_steps=5).fit(Net(), data)
    folder = "feature_maps/conv/image_0"
    assert list(figures) == [f"{folder}/{n}" for n in ("epoch_000", "epoch_001_step_000000005", "over_training")]
    assert "epoch 1.67 (step 5)" in texts(figures[f"{folder}/epoch_001_step_000000005"])


def test_validate_draws_once(data: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]) -> None:
    net = Net()
    make_trainer(FeatureMaps()).validate(net, data, verbose=False)
    assert list(figures) == ["feature_maps/conv/image_0/evaluation"]
    expected = net.conv(data.images[:1])[0].detach()
    np.testing.assert_allclose(tiles(figures["feature_maps/conv/image_0/evaluation"]), expected, rtol=1e-5)


def test_test_recommends_validate(data: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]) -> None:
    with pytest.warns(UserWarning, match="FeatureMaps draws nothing in test, .* run validate"):
        make_trainer(FeatureMaps()).test(Net(), data, verbose=False)
    assert not figures
    trainer = make_trainer(FeatureMaps())
    trainer.fit(Net(), data)
    trainer.test(Net(), data, verbose=False)  # nothing to say: a warning would be an error


def test_unusual_images_and_precisions(data: Any, make_trainer: MakeTrainer, figures: dict[str, Figure]) -> None:
    data.images = torch.rand(11, 4, 6, 6)
    data.class_names, data.mean, data.std = ("only",), None, None
    net = Net()
    net.conv = nn.Conv2d(4, 4, 3)
    make_trainer(FeatureMaps(), precision="bf16-true").fit(net, data)
    panel = figures["feature_maps/conv/image_0/epoch_000"]
    np.testing.assert_allclose(np.asarray(panel.axes[0].images[0].get_array()), data.images[0].mean(0), atol=1e-6)
    # A name where there is one, else the number.
    assert "image 0 (only)" in texts(panel)
    assert tiles(panel).shape == (4, 4, 4)


def test_mistakes_are_reported_before_the_training(data: Any, make_trainer: MakeTrainer, make_module: Any) -> None:
    def fit(callback: FeatureMaps, module: LightningModule | None = None) -> None:
        net = module or Net()
        weights = {name: value.clone() for name, value in net.state_dict().items()}
        try:
            make_trainer(callback).fit(net, data)
        finally:
            assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
            assert not any(layer._forward_hooks for layer in net.modules())

    with pytest.raises(ValueError, match=r"Net has no layer 'con': did you mean conv"):
        fit(FeatureMaps(layers=["con"]))
    with pytest.raises(ValueError, match=r"layer 'head' returns \(1, 3\), not maps"):
        fit(FeatureMaps(layers=["head"]))
    with pytest.raises(ValueError, match="image 11 does not exist"):
        fit(FeatureMaps(images=[11]))
    with pytest.raises(ValueError, match="ExternalModule has no convolution: name the layers"):
        fit(FeatureMaps(), make_module())
    with pytest.raises(ValueError, match=r"ExternalModule cannot be called as model\(images\)"):
        fit(FeatureMaps(layers=["layer"]), make_module())


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"layers \(='conv'\) must be a list of names"):
        FeatureMaps(layers="conv")
    with pytest.raises(ValueError, match=r"layers \(=\[\]\)"):
        FeatureMaps(layers=[])
    with pytest.raises(ValueError, match=r"images \(=\[3, -1\]\)"):
        FeatureMaps(images=[3, -1])
    with pytest.raises(ValueError, match=r"every_n_epochs \(=0\) must be at least 1"):
        FeatureMaps(every_n_epochs=0)
    with pytest.raises(ValueError, match=r"max_maps \(=0\) must be at least 1"):
        FeatureMaps(max_maps=0)


@pytest.mark.usefixtures("other_rank")
def test_another_rank_draws_nothing_but_checks_names(
    data: Any, make_trainer: MakeTrainer, figures: dict[str, Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_maps, "read_probe", None)
    make_trainer(FeatureMaps()).fit(Net(), data)
    assert not figures
    with pytest.raises(ValueError, match="has no layer"):
        make_trainer(FeatureMaps(layers=["con"])).fit(Net(), data)
