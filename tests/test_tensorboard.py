"""Contents of the event files, read with TensorBoard's own reader."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as ServerAccumulator
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.util.tensor_util import make_ndarray
from torch import Tensor, nn

from lightning_cifar import EmbeddingProjector, LayerTable, WeightHistograms, cli
from lightning_cifar.analysis.embedding import features_and_outputs
from lightning_cifar.artifacts import tensorboard
from lightning_cifar.runs.board_record import plain_settings

FIT = [
    *("fit", "--model", "LeNet", "--model.lr", "0.1", "--data", "SyntheticDataModule", "--data.num_train", "96"),
    *("--data.num_val", "40", "--data.num_test", "50", "--data.batch_size", "32", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false"),
]
OVERLAYS = [
    "--config",
    "configs/callbacks/weight_histograms.yaml",
    "--config",
    "configs/callbacks/embedding_projector.yaml",
]


def read(folder: Path) -> EventAccumulator:
    sizes = {"scalars": 0, "tensors": 0, "images": 0, "histograms": 0}
    return EventAccumulator(str(folder), sizes).Reload()


def settings(events: EventAccumulator) -> dict[str, Any]:
    content = events.SummaryMetadata(hparams.SESSION_START_INFO_TAG).plugin_data.content
    values = hparams.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


def status(events: EventAccumulator) -> str | None:
    if hparams.SESSION_END_INFO_TAG not in events.Tags()["tensors"]:
        return None
    content = events.SummaryMetadata(hparams.SESSION_END_INFO_TAG).plugin_data.content
    return {1: "success", 2: "failure"}[hparams.parse_session_end_info_plugin_data(content).status]


def text(events: EventAccumulator, tag: str) -> str:
    value: bytes = make_ndarray(events.Tensors(f"{tag}/text_summary")[-1].tensor_proto).item()
    return value.decode()


def scalars(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with both overlays, continued for a third, with a test."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        assert cli.main([*FIT, *OVERLAYS, "--trainer.max_epochs", "2", "--run_dir", "a"]) == 0
        shutil.copytree("a", "two")
        more = ["--trainer.max_epochs", "3", "--test_after_fit", "true"]
        assert cli.main(["fit", "--resume", "a", *more]) == 0
    return folder


def test_settings_and_results(run: Path) -> None:
    events, metrics = read(run), json.loads((run / "result.json").read_text())["metrics"]
    found = settings(events)
    assert found["model"] == "LeNet"
    assert found["data"] == "SyntheticDataModule"
    shown = ("seed", "model.lr", "data.batch_size", "trainer.precision", "data.augment", "trainer.max_epochs")
    assert [found[name] for name in shown] == [0, 0.1, 32, "32-true", '["flip", {"crop": 4}]', 2]
    assert not {"model.momentum", "trainer.devices", "trainer.log_every_n_steps", "data.split_seed"} & set(found)
    for name in ("val/accuracy", "val/loss", "test/accuracy", "test/loss"):
        assert scalars(events, f"end/{name}")[-1] == (8, pytest.approx(metrics[name], rel=1e-6))
    for name, best in {"val/accuracy": max, "val/loss": min}.items():
        values = [value for _, value in scalars(events, name)]
        assert len(values) == 3
        assert [value for _, value in scalars(events, f"best/{name}")] == [best(values[: i + 1]) for i in range(3)]
    assert scalars(events, "run/epochs")[-1] == (8, 3)
    assert "hp_metric" not in events.Tags()["scalars"]
    assert status(events) == "success"


def test_a_resumed_run_has_no_duplicate_points(run: Path) -> None:
    events = read(run)
    for tag in set(events.Tags()["scalars"]) - {"epoch"}:  # Lightning logs it with each metric
        steps = [step for step, _ in scalars(events, tag)]
        assert steps == sorted(set(steps)), tag
    assert {event.step for event in events.Histograms("weights/network.0.weight")} == {2}  # later epochs are not due
    assert {event.step for event in events.Tensors("pr/val/disc")} == {2, 5, 8}
    assert [event.step for event in events.Tensors("network/layers/text_summary")] == [0]
    assert len(events.Tensors("run/configuration/text_summary")) == 2


def test_texts_and_graph(run: Path) -> None:
    events = read(run)
    held = yaml.safe_load(text(events, "run/configuration").strip("`\n"))
    assert held["trainer"]["max_epochs"] == 3
    assert held == yaml.safe_load((run / "config.yaml").read_text()) | {"test_after_fit": True}
    assert "lightning-cifar fit --config a/config.yaml" in text(events, "run/command")
    assert f"| torch | {torch.__version__.partition('+')[0]}" in text(events, "run/versions_and_machine")
    assert "| network.0 | Conv2d(3, 6" in text(events, "network/layers")
    with (run / "class_accuracy_test.csv").open() as file:
        rows = list(csv.reader(file))
    assert text(events, "classes/test").count("\n") == len(rows)
    assert f"| {rows[1][0]} | {rows[1][1]} | {rows[1][2]} |" in text(events, "classes/test")
    assert b"network" in events.Graph().SerializeToString()


def test_image_tags_are_kind_then_stage(run: Path) -> None:
    expected = {f"{kind}/{stage}" for kind in ("samples", "confusion") for stage in ("val", "test")}
    assert set(read(run).Tags()["images"]) == expected | {"samples/train", "curves/loss_curves"}
    assert {path.name for path in (run / "pictures").glob("*.png")} >= {"samples_train.png", "confusion_val.png"}


def test_pr_curves_count_all_images(run: Path) -> None:
    events = read(run)
    with (run / "confusion_test.csv").open() as file:
        counts = np.array([row[1:] for row in csv.reader(file)][1:], dtype=int)
    names = [tag for tag in events.Tags()["tensors"] if tag.startswith("pr/test/")]
    assert len(names) == len(counts)
    for tag, count in zip(names, counts.sum(1), strict=True):
        hits, alarms, rest, misses, precision, recall = make_ndarray(events.Tensors(tag)[-1].tensor_proto)
        assert (hits + misses == count).all()
        assert (alarms + rest == counts.sum() - count).all()
        assert recall[0] == 1
        assert precision[0] == pytest.approx(count / counts.sum())


def test_histograms_count_all_weights_and_gradients(run: Path) -> None:
    events = read(run)
    for kind in ("weights", "gradients"):
        (event,) = events.Histograms(f"{kind}/network.0.weight")
        assert event.histogram_value.num == sum(event.histogram_value.bucket) == 6 * 3 * 5 * 5
        assert event.histogram_value.min < 0 < event.histogram_value.max


def test_projector_files(run: Path) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = text_format.Parse((run / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [each.tensor_name for each in config.embeddings] == [f"features/epoch_00{n}" for n in (1, 2, 3)]
    for each in config.embeddings:
        assert list(each.tensor_shape) == [40, 84]
        assert np.loadtxt(run / each.tensor_path).shape == (40, 84)
        with Image.open(run / each.sprite.image_path) as sprite:
            assert sprite.size == (7 * 32, 7 * 32)
        assert list(each.sprite.single_image_dim) == [32, 32]
    with (run / config.embeddings[-1].metadata_path).open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [int(row["index"]) for row in rows] == list(range(40))
    accuracy = json.loads((run / "result.json").read_text())["metrics"]["val/accuracy"]
    assert np.mean([row["correct"] == "yes" for row in rows]) == pytest.approx(accuracy)
    assert all((row["label"] == row["prediction"]) == (row["correct"] == "yes") for row in rows)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_and_failed_runs_have_a_row(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_cifar import LeNet

    def stop(self: object) -> None:
        raise error("stop")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LeNet, "on_train_epoch_end", stop)
    with suppress(BaseException):
        cli.main([*FIT, "--trainer.max_epochs", "2", "--run_dir", "a"])
    events = read(tmp_path / "a")
    assert settings(events)["model.lr"] == pytest.approx(0.1)
    assert status(events) == (None if error is KeyboardInterrupt else "failure")


def test_a_diverged_run_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*FIT, "--model.lr", "1e30", "--trainer.max_epochs", "3", "--run_dir", "a"]) == 2
    events = read(tmp_path / "a")
    assert settings(events)["model.lr"] == pytest.approx(1e30)
    assert status(events) == "failure"
    assert [value for _, value in scalars(events, "run/epochs")] == [0]


def test_a_repeated_epoch_has_no_duplicate_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard's server purges what the interrupted run wrote after its last checkpoint."""
    from lightning_cifar import LeNet

    def stop(self: LeNet) -> None:
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(LeNet, "on_train_epoch_end", stop)
        with suppress(BaseException):
            cli.main([*FIT, "--trainer.max_epochs", "3", "--run_dir", "a"])
    assert cli.main(["fit", "--resume", "a"]) == 0
    events = ServerAccumulator(str(tmp_path / "a"), {"tensors": 0}).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith(("pr/", "val/", "best/"))]
    assert {"pr/val/disc", "val/loss", "best/val/loss", "val/accuracy/disc"} <= set(tags)
    for tag in tags:
        assert [event.step for event in events.Tensors(tag)] == [2, 5, 8], tag
    assert [event.step for event in events.Tensors("network/layers/text_summary")] == [0]


def test_only_settings_that_differ_from_their_defaults_and_the_main_ones_are_columns() -> None:
    class Base(pl.LightningModule):
        def __init__(self, lr: float = 0.1, decay: float = 0.0, hidden: tuple[int, ...] = (3,)) -> None:
            super().__init__()

    class Model(Base):
        def __init__(self, width: int = 2, **more: Any) -> None:
            super().__init__(**more)

    held = {"lr": 0.1, "decay": 0.0, "hidden": [3], "width": 4, "weights": None}
    config = {"seed_everything": 3, "model": {"class_path": "Model", "init_args": held}, "trainer": {"callbacks": [1]}}
    found = plain_settings(config, {"model": Model, "trainer": pl.Trainer})
    assert found == {"seed": 3, "model": "Model", "model.lr": 0.1, "model.width": 4}


class Untraceable(pl.LightningModule):
    """A network whose output depends on the value of a Python object."""

    example_input_array = torch.zeros(1, 3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("cannot be traced")
        logits: Tensor = self.head(self.body(images).mean(dim=(2, 3)))
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.arange(6) % 2), batch_size=3)

    val_dataloader = train_dataloader


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., EventAccumulator]:
    def fit(*callbacks: pl.Callback, loggers: Any = None) -> EventAccumulator:
        board = TensorBoardLogger(tmp_path, "", "")
        given = [board, CSVLogger(tmp_path / "csv")] if loggers is None else loggers
        options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = pl.Trainer(
            max_epochs=2, callbacks=list(callbacks), logger=given, enable_checkpointing=False, **options
        )
        trainer.fit(Untraceable())
        return read(tmp_path)

    return fit


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_module_that_cannot_be_traced_has_no_graph_and_no_noise(
    fit: Callable[..., EventAccumulator], capsys: pytest.CaptureFixture[str]
) -> None:
    events = fit(LayerTable())
    assert not events.Tags()["graph"]
    assert "| head | Linear" in text(events, "network/layers")
    printed = capsys.readouterr()
    assert "traced" not in printed.out + printed.err


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_other_loggers_and_layers(fit: Callable[..., EventAccumulator], tmp_path: Path) -> None:
    callbacks = [LayerTable(), WeightHistograms(), EmbeddingProjector(layer="body", num_images=50)]
    fit(*callbacks, loggers=[CSVLogger(tmp_path / "csv")])
    fit(*callbacks, loggers=False)
    assert not (tmp_path / "projector_config.pbtxt").exists()
    events = fit(*callbacks)
    assert "weights/head.weight" in events.Tags()["histograms"]
    assert "tensor_shape: [6, 144]" in (tmp_path / "projector_config.pbtxt").read_text()  # all of six images
    with pytest.raises(ValueError, match=r"has no layer 'bodi': did you mean body\?"):
        fit(EmbeddingProjector(layer="bodi"))


def test_features_are_the_input_of_the_last_layer() -> None:
    model, images = Untraceable(), torch.rand(4, 3, 8, 8)
    features, outputs = features_and_outputs(model, images)
    assert torch.equal(features, model.body(images).mean(dim=(2, 3)))
    assert torch.equal(outputs, model.head(features))
    assert torch.equal(features_and_outputs(model, images, "body")[0], model.body(images).flatten(1))
    assert model.training


@pytest.mark.parametrize(("count", "size"), [(10, 400), (9, 10), (2, 900)])
def test_a_sprite_has_at_most_8192_pixels(count: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tensorboard.LARGEST_SPRITE == 8192
    monkeypatch.setattr(tensorboard, "LARGEST_SPRITE", 819)  # the same law with a tenth of the pixels
    pixels = np.broadcast_to(np.linspace(0, 1, count, dtype=np.float32)[:, None, None, None], (count, size, size, 1))
    content, (height, width) = tensorboard._sprite(pixels)
    with Image.open(io.BytesIO(content)) as sprite:
        columns = sprite.width // width
        assert max(sprite.size) <= 819
        for i in (0, count - 1):
            box = (i % columns * width, i // columns * height)
            assert sprite.getpixel(box) == (round(255 * i / (count - 1)),) * 3
    assert columns**2 >= count
