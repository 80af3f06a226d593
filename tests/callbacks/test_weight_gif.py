"""The animation shows every frame once, in order, also after interruptions of the training."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from lightning_cifar.analysis.filters import scale_filters
from lightning_cifar.callbacks import WeightGIF
from lightning_cifar.plots import draw_filter_frame

pytestmark = [
    # Of checkpoints that another folder's training goes on from.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

MakeTrainer = Callable[..., Trainer]
STEPS = 3
"""Steps per epoch."""


class Net(LightningModule):
    """Two convolutions that are trained; the logged accuracy is a tenth of the number of completed epochs."""

    def __init__(self, channels: int = 3, filters: int = 4, lr: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(channels, filters, 3), nn.ReLU(), nn.Conv2d(filters, 2, 2))
        self.lr = lr

    def loss(self, batch: Tensor) -> Tensor:
        result = self.net(batch).square().sum()
        assert isinstance(result, Tensor)
        return result

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/accuracy", (self.current_epoch + 1) / 10)
        self.log("val/error", self.current_epoch + 0.12345)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr / 100, momentum=0.9)


class Loader:
    """The same batch in every step, so that a training can continue from any step."""

    def __init__(self, channels: int = 3) -> None:
        self.batch = torch.linspace(-1, 1, 2 * channels * 36).reshape(2, channels, 6, 6)

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self.batch] * STEPS)

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


class Watch(Callback):
    """Records the weights of the first convolution after each step; 0 is before the first one."""

    def __init__(self) -> None:
        self.weights: dict[int, NDArray[np.float32]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.weights[trainer.global_step] = pl_module.net[0].weight.detach().clone().numpy()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: object) -> None:
        self.weights[trainer.global_step] = pl_module.net[0].weight.detach().clone().numpy()


class Stop(Callback):
    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise self.error


def frames_of(folder: Path, name: str = "weights") -> list[dict[str, Any]]:
    """The frames on the disk."""
    paths = sorted((folder / "pictures/.frames" / name).glob("*"))
    assert [path.name for path in paths] == [f"{index:06d}.npz" for index in range(len(paths))]
    return [dict(np.load(path)) for path in paths]


def pictures_of(path: Path) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Frames and their durations in ms."""
    frames, durations = [], []
    with Image.open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(int(image.info["duration"]))
    return frames, durations


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each frame, with its values."""
    calls: list[dict[str, Any]] = []

    def record(values: NDArray[np.float32], **options: Any) -> NDArray[np.uint8]:
        calls.append({"values": values, **options})
        return draw_filter_frame(values, **options)

    monkeypatch.setattr("lightning_cifar.plots.filters.draw_filter_frame", record)
    return calls


def test_a_frame_before_training_and_after_each_epoch(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    watch = Watch()
    make_trainer(WeightGIF(), watch, max_epochs=4, num_sanity_val_steps=1).fit(Net(), Loader(), Loader())
    frames = frames_of(tmp_path)
    assert [int(frame["step"]) for frame in frames] == [0, 3, 6, 9, 12]
    assert [float(frame["epoch"]) for frame in frames] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([frame["metric"] for frame in frames], [np.nan, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    for frame in frames:
        assert np.array_equal(frame["weights"], watch.weights[int(frame["step"])])
    for suffix in ("gif", "webp"):
        pictures, durations = pictures_of(tmp_path / f"pictures/weights.{suffix}")
        assert len(pictures) == 5
        assert durations == [200] * 5


def test_periods(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    def steps(callback: WeightGIF, **options: Any) -> list[tuple[int, float]]:
        make_trainer(callback, **({"max_epochs": 5} | options)).fit(Net(), Loader(), Loader())
        return [(int(frame["step"]), round(float(frame["epoch"]), 2)) for frame in frames_of(tmp_path)]

    assert steps(WeightGIF(every_n_epochs=2)) == [(0, 0), (6, 2), (12, 4)]
    assert steps(WeightGIF(every_n_steps=4)) == [(0, 0), (4, 1.33), (8, 2.67), (12, 4)]
    # Steps are the optimizer's.
    assert steps(WeightGIF(every_n_steps=1), accumulate_grad_batches=2, max_epochs=1) == [(0, 0), (1, 0.67), (2, 1)]
    # An epoch that was cut short is none.
    assert steps(WeightGIF(), max_epochs=-1, max_steps=7) == [(0, 0), (3, 1), (6, 2)]
    assert steps(WeightGIF(), limit_train_batches=2) == [(2 * epoch, epoch) for epoch in range(6)]


def test_the_frames_show_the_weights(make_trainer: MakeTrainer, tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    make_trainer(WeightGIF(columns=3, seconds_per_frame=0.5), max_epochs=2).fit(Net(), Loader(), Loader())
    titles = ["epoch 0, step 0, initial weights"]
    titles += [f"epoch {n}, step {3 * n}, validation accuracy {10 * n}.0 %" for n in (1, 2)]
    assert [call["title"] for call in drawn] == titles
    assert {call["subtitle"] for call in drawn} == {"Net, net.0: 4 filters of 3 x 3 x 3 weights"}
    pictures, durations = pictures_of(tmp_path / "pictures/weights.webp")
    assert durations == [500] * 3
    for frame, picture, title in zip(frames_of(tmp_path), pictures, titles, strict=True):
        expected = draw_filter_frame(
            scale_filters(frame["weights"]),
            color=True,
            title=title,
            subtitle="Net, net.0: 4 filters of 3 x 3 x 3 weights",
            columns=3,
        )
        assert np.array_equal(picture, expected)


def test_titles_without_and_with_another_metric(
    make_trainer: MakeTrainer, drawn: list[dict[str, Any]], own_warnings: Any
) -> None:
    make_trainer(WeightGIF(), limit_val_batches=0).fit(Net(), Loader(), Loader())
    make_trainer(WeightGIF(metric="val/error")).fit(Net(), Loader(), Loader())
    make_trainer(WeightGIF(every_n_steps=2), max_epochs=2).fit(Net(), Loader(), Loader())
    assert [call["title"] for call in drawn] == [
        "epoch 0, step 0, initial weights",
        "epoch 1, step 3",
        "epoch 0, step 0, initial weights",
        "epoch 1, step 3, val/error 0.1235",
        "epoch 0.0, step 0, initial weights",
        "epoch 0.7, step 2",
        "epoch 1.3, step 4, validation accuracy 10.0 %",
        "epoch 2.0, step 6, validation accuracy 20.0 %",  # which comes after this step
    ]


def test_one_scale_for_the_whole_animation(
    make_trainer: MakeTrainer, tmp_path: Path, drawn: list[dict[str, Any]]
) -> None:
    module = Net(channels=1)
    make_trainer(WeightGIF(scaling="shared"), max_epochs=3).fit(module, Loader(1), Loader(1))
    weights = np.stack([frame["weights"] for frame in frames_of(tmp_path)])
    limit = np.abs(weights).max()
    assert {call["limit"] for call in drawn} == {limit}
    assert not any(call["color"] for call in drawn)
    for call, values in zip(drawn, weights, strict=True):
        np.testing.assert_allclose(call["values"], 0.5 + values / (2 * limit), atol=1e-6)
    assert max(abs(call["values"] - 0.5).max() for call in drawn) == 0.5


def test_colour_and_single_channels(make_trainer: MakeTrainer, tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    callbacks = [WeightGIF(mode="channels"), WeightGIF("net.2"), WeightGIF("net.2", name="few", max_kernels=2)]
    make_trainer(*callbacks, WeightGIF(name="rgb")).fit(Net(), Loader(), Loader())
    assert [(call["color"], call["values"].shape) for call in drawn[::2]] == [
        (False, (4, 3, 3, 3)),
        (False, (2, 4, 2, 2)),
        (False, (2, 1, 2, 2)),
        (True, (4, 3, 3, 3)),
    ]
    assert drawn[4]["subtitle"] == "Net, net.2: 2 filters of 4 x 2 x 2 weights, input channel 0"
    names = {path.name for path in (tmp_path / "pictures").glob("*.gif")}
    assert names == {"weights.gif", "weights_net.2.gif", "few.gif", "rgb.gif"}


EPOCHS = 5
CASES = {
    "saved at the end of an epoch": ({"save_on_train_epoch_end": True}, {}, 6),
    "saved after a validation": ({"monitor": "val/accuracy", "save_on_train_epoch_end": False}, {}, 6),
    "saved within an epoch": ({"every_n_train_steps": 1}, {}, 7),
    "saved after an epoch's last step": ({"every_n_train_steps": 1}, {}, 6),
    "frames by steps, saved within an epoch": ({"every_n_train_steps": 1}, {"every_n_steps": 2}, 7),
    "frames by steps, saved with one": ({"every_n_train_steps": 1}, {"every_n_steps": 2}, 8),
    "every second epoch": ({"every_n_train_steps": 1}, {"every_n_epochs": 2}, 8),
}


def fit(make_trainer: MakeTrainer, folder: Path, callback: WeightGIF, *others: Callback, **options: Any) -> Trainer:
    checkpoint = options.pop("ckpt_path", None)
    trainer = make_trainer(
        callback, *others, max_epochs=EPOCHS, default_root_dir=folder, enable_checkpointing=True, **options
    )
    trainer.fit(Net(), Loader(), Loader(), ckpt_path=checkpoint, weights_only=True)
    return trainer


def saving(folder: Path, **when: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder / "checkpoints", "{step}", save_top_k=-1, **when)


@pytest.mark.parametrize(("saves", "options", "step"), CASES.values(), ids=CASES.keys())
def test_a_resumed_run_has_the_frames_of_the_unbroken_one(
    make_trainer: MakeTrainer, tmp_path: Path, saves: Any, options: Any, step: int
) -> None:
    whole, killed, resumed = (tmp_path / name for name in ("whole", "killed", "resumed"))
    fit(make_trainer, whole, WeightGIF(**options), saving(whole, **saves))
    with pytest.raises(RuntimeError, match="killed"):  # with more frames on the disk than the checkpoint knows
        fit(make_trainer, killed, WeightGIF(**options), saving(killed, **saves), Stop(11, RuntimeError("killed")))
    fit(make_trainer, resumed, WeightGIF(**options), ckpt_path=killed / f"checkpoints/step={step}.ckpt")
    expected, found = (frames_of(folder) for folder in (whole, resumed))
    assert [int(frame["step"]) for frame in found] == [int(frame["step"]) for frame in expected]
    for one, other in zip(found, expected, strict=True):
        for key in ("weights", "epoch", "metric"):
            np.testing.assert_array_equal(one[key], other[key])
    for suffix in ("gif", "webp"):
        name = f"pictures/weights.{suffix}"
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_resuming_in_the_same_folder_and_again(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    fit(make_trainer, whole, WeightGIF(every_n_steps=1))
    with pytest.raises(RuntimeError, match="killed"):
        fit(make_trainer, run, WeightGIF(every_n_steps=1), saving(run), Stop(11, RuntimeError("killed")))
    for step in (6, 3):
        fit(make_trainer, run, WeightGIF(every_n_steps=1), ckpt_path=run / f"checkpoints/step={step}.ckpt")
        assert (run / "pictures/weights.webp").read_bytes() == (whole / "pictures/weights.webp").read_bytes()


def test_a_run_that_was_moved_still_has_its_frames(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    run, moved, resumed = (tmp_path / name for name in ("run", "moved", "resumed"))
    fit(make_trainer, run, WeightGIF(), saving(run))
    whole = (run / "pictures/weights.webp").read_bytes()
    run.rename(moved)
    fit(make_trainer, resumed, WeightGIF(), ckpt_path=moved / "checkpoints/step=9.ckpt")
    assert (resumed / "pictures/weights.webp").read_bytes() == whole


def test_a_checkpoint_that_was_moved_still_finds_its_frames(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    run, resumed = tmp_path / "run", tmp_path / "resumed"
    fit(make_trainer, run, WeightGIF(), saving(run))
    (tmp_path / "a/b").mkdir(parents=True)
    checkpoint = (run / "checkpoints/step=9.ckpt").rename(tmp_path / "a/b/some.ckpt")
    fit(make_trainer, resumed, WeightGIF(), ckpt_path=checkpoint)
    assert (resumed / "pictures/weights.webp").read_bytes() == (run / "pictures/weights.webp").read_bytes()


def test_saving_between_epochs_adds_no_frame(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: object) -> None:
            trainer.save_checkpoint(tmp_path / "some.ckpt")

        on_train_start = on_train_end = on_train_epoch_start

    make_trainer(Save(), WeightGIF(), Save(), max_epochs=3).fit(Net(), Loader(), Loader())
    assert [int(frame["step"]) for frame in frames_of(tmp_path)] == [0, 3, 6, 9]


@pytest.mark.parametrize("loss", ["gone", "of another run"])
def test_missing_frames_cause_a_warning(
    make_trainer: MakeTrainer, tmp_path: Path, own_warnings: Any, loss: str
) -> None:
    run, resumed = tmp_path / "run", tmp_path / "resumed"
    fit(make_trainer, run, WeightGIF(), saving(run))
    shutil.rmtree(run / "pictures")
    if loss == "of another run":
        fit(make_trainer, run, WeightGIF())
    with pytest.warns(UserWarning, match="WeightGIF") as caught:
        fit(make_trainer, resumed, WeightGIF(), ckpt_path=run / "checkpoints/step=9.ckpt")
    (message,) = own_warnings(caught, "WeightGIF")
    assert message == (
        f"WeightGIF: the 4 frames from before the checkpoint are missing in {run}: the animation starts here."
    )
    assert [int(frame["step"]) for frame in frames_of(resumed)] == [9, 12, 15]
    assert [float(frame["epoch"]) for frame in frames_of(resumed)] == [3, 4, 5]


def test_a_checkpoint_from_before_the_callback(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    run, resumed = tmp_path / "run", tmp_path / "resumed"
    make_trainer(saving(run, every_n_train_steps=1), max_epochs=3, enable_checkpointing=True).fit(
        Net(), Loader(), Loader()
    )
    fit(make_trainer, resumed, WeightGIF(), ckpt_path=run / "checkpoints/step=7.ckpt")
    assert [int(frame["step"]) for frame in frames_of(resumed)] == [7, 9, 12, 15]
    np.testing.assert_allclose([frame["epoch"] for frame in frames_of(resumed)], [7 / 3, 3, 4, 5])


def test_a_second_training_begins_anew(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callback = WeightGIF()
    make_trainer(callback, max_epochs=4).fit(Net(), Loader(), Loader())
    make_trainer(callback, max_epochs=2).fit(Net(), Loader(), Loader())
    assert [int(frame["step"]) for frame in frames_of(tmp_path)] == [0, 3, 6]
    assert len(pictures_of(tmp_path / "pictures/weights.gif")[0]) == 3


def test_a_training_that_continues_keeps_its_frames(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    module = Net()
    trainer = make_trainer(WeightGIF(), max_epochs=2)
    trainer.fit(module, Loader(), Loader())
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, Loader(), Loader())
    assert [int(frame["step"]) for frame in frames_of(tmp_path)] == [0, 3, 6, 9]
    assert len(pictures_of(tmp_path / "pictures/weights.gif")[0]) == 4


@pytest.mark.parametrize(
    ("error", "raised"), [(RuntimeError("broken"), RuntimeError), (KeyboardInterrupt(), SystemExit)], ids=repr
)
def test_a_run_that_breaks_off_has_its_animation(
    make_trainer: MakeTrainer, tmp_path: Path, error: BaseException, raised: type[BaseException]
) -> None:
    with pytest.raises(raised):
        make_trainer(WeightGIF(), Stop(8, error), max_epochs=4).fit(Net(), Loader(), Loader())
    assert len(pictures_of(tmp_path / "pictures/weights.gif")[0]) == 3


def test_it_is_put_together_once(make_trainer: MakeTrainer, drawn: list[dict[str, Any]]) -> None:
    class Fail(Callback):
        def on_train_end(self, *_: object) -> None:
            raise RuntimeError("after it")

    with pytest.raises(RuntimeError, match="after it"):
        make_trainer(WeightGIF(), Fail()).fit(Net(), Loader(), Loader())
    assert len(drawn) == 2


def test_a_full_disk_does_not_hide_the_error_that_broke_the_run(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, tag: str) -> None:
        raise OSError("could not write weights.gif")

    monkeypatch.setattr("lightning_cifar.callbacks.weight_gif.save_animation", fail)
    trainer = make_trainer(WeightGIF(), Stop(2, RuntimeError("the first")))
    with pytest.warns(UserWarning, match="WeightGIF: could not write"), pytest.raises(RuntimeError, match="the first"):
        trainer.fit(Net(), Loader(), Loader())


def test_frames_are_on_the_disk_at_once_and_nowhere_else(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callback = WeightGIF(every_n_steps=1)
    sizes = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            assert len(frames_of(tmp_path)) == trainer.global_step + 1
            held = [value for name, value in vars(callback).items() if name != "_filters"]
            assert not any(isinstance(value, np.ndarray | Tensor | list) for value in held)
            sizes.append(len(repr(callback.state_dict())))

    make_trainer(callback, Look(), max_epochs=4).fit(Net(), Loader(), Loader())
    assert max(sizes) - min(sizes) < 40  # the digits of a few numbers
    assert callback._filters is None  # the model is not kept alive


def test_frames_lost_on_the_way_are_left_out(make_trainer: MakeTrainer, tmp_path: Path, own_warnings: Any) -> None:
    class Lose(Callback):
        def on_train_epoch_end(self, trainer: Trainer, *_: object) -> None:
            (tmp_path / "pictures/.frames/weights/000001.npz").unlink(missing_ok=True)

    with pytest.warns(
        UserWarning, match=r"WeightGIF: 1 frames in .*weights are missing or damaged \(000001.npz\): not shown"
    ):
        make_trainer(WeightGIF(), Lose(), max_epochs=3).fit(Net(), Loader(), Loader())
    assert len(pictures_of(tmp_path / "pictures/weights.gif")[0]) == 3


@pytest.mark.parametrize("damage", ["bytes", "keys", "shape", "type", "pipe"])
def test_damaged_frames_are_reported_when_a_run_is_resumed(
    make_trainer: MakeTrainer, tmp_path: Path, own_warnings: Any, damage: str
) -> None:
    run = tmp_path / "run"
    fit(make_trainer, run, WeightGIF(), saving(run))
    path = run / "pictures/.frames/weights/000001.npz"
    held = dict(np.load(path))
    if damage == "bytes":
        content = bytearray(path.read_bytes())
        content[content.index(held["weights"].tobytes())] ^= 1
        path.write_bytes(content)
    elif damage == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        del held["metric"]
        changes: dict[str, Any] = {"keys": {}, "shape": {"weights": np.ones(3)}, "type": {"metric": "high"}}
        np.savez(path, **{**held, **changes[damage]})

    class Look(Callback):
        def on_train_batch_start(self, *_: object) -> None:
            assert len(own_warnings(caught, "WeightGIF")) == 1, "it is reported before the training"

    with pytest.warns(UserWarning, match="WeightGIF") as caught:
        fit(make_trainer, run, WeightGIF(), Look(), ckpt_path=run / "checkpoints/step=9.ckpt")
    first, last = own_warnings(caught, "WeightGIF")
    assert first == f"WeightGIF: 1 frames in {path.parent} are missing or damaged (000001.npz): not shown."
    assert last == f"WeightGIF: 1 frames in {path.parent} are missing or damaged (000001.npz): not shown."
    assert len(pictures_of(run / "pictures/weights.gif")[0]) == EPOCHS


def test_tensorboard_plays_the_animation(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path, name="", version="")
    make_trainer(WeightGIF(), logger=board).fit(Net(), Loader(), Loader())
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    (image,) = events.Images("filters/weights")
    assert image.step == STEPS - 1
    assert image.encoded_image_string == (tmp_path / "pictures/weights.gif").read_bytes()


@pytest.mark.usefixtures("other_rank")
def test_another_rank_writes_nothing(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(WeightGIF(), max_epochs=2).fit(Net(), Loader(), Loader())
    assert not (tmp_path / "pictures").exists()


def test_fast_dev_run_finds_mistakes(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match="did you mean net"):
        make_trainer(WeightGIF("net.7"), fast_dev_run=True).fit(Net(), Loader(), Loader())


def test_the_training_is_not_disturbed(make_trainer: MakeTrainer) -> None:
    def train(*callbacks: Callback) -> tuple[Tensor, Tensor]:
        module = Net()
        torch.manual_seed(1)
        make_trainer(*callbacks, max_epochs=2).fit(module, Loader(), Loader())
        assert not module.net[0]._forward_hooks
        return module.net[0].weight.detach().clone(), torch.get_rng_state()

    for one, other in zip(train(WeightGIF(every_n_steps=1)), train(), strict=True):
        assert torch.equal(one, other)


def test_beside_averaged_weights_the_trained_ones_are_shown(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    watch = Watch()
    average = EMAWeightAveraging(decay=0.5)
    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", monitor="val/accuracy")
    make_trainer(WeightGIF(), average, watch, checkpoint, max_epochs=3, enable_checkpointing=True).fit(
        Net(), Loader(), Loader()
    )
    for frame in frames_of(tmp_path):
        assert np.array_equal(frame["weights"], watch.weights[int(frame["step"])])


def test_weights_that_are_not_finite_are_stated(
    make_trainer: MakeTrainer, tmp_path: Path, drawn: list[dict[str, Any]]
) -> None:
    make_trainer(WeightGIF(scaling="shared"), max_epochs=2).fit(Net(lr=1e9), Loader(), Loader())
    number = np.isnan(frames_of(tmp_path)[-1]["weights"]).sum()
    assert number > 0
    assert drawn[-1]["subtitle"] == f"{number} weights are not finite (magenta)"


def test_pyplot_is_never_needed(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it is an error from here
    make_trainer(WeightGIF(scaling="shared")).fit(Net(), Loader(), Loader())
    assert (tmp_path / "pictures/weights.gif").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, r"every_n_epochs \(=0\) must be at least 1"),
        ({"every_n_steps": -1}, r"every_n_steps \(=-1\) must be at least 1"),
        (
            {"every_n_epochs": 1, "every_n_steps": 5},
            r"every_n_epochs \(=1\) and every_n_steps \(=5\) are mutually exclusive",
        ),
        ({"columns": 0}, r"columns \(=0\) must be at least 1"),
        ({"max_kernels": 1000}, r"max_kernels \(=1000\) must be 1 to 256"),
        ({"seconds_per_frame": 0.001}, r"seconds_per_frame \(=0\.001\) must be 0\.02 to 60"),
    ],
)
def test_numbers_out_of_range(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightGIF(**options)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (WeightGIF("net.3"), r"Net has no layer 'net\.3': did you mean net"),
        (WeightGIF("net.1"), r"layer net\.1 \(ReLU\) has no weights: choose a convolution, such as net\.0"),
        (WeightGIF("net.2", mode="rgb"), "mode rgb needs filters of 3 input channels, not 4"),
    ],
)
def test_a_layer_without_filters_stops_before_training(
    make_trainer: MakeTrainer, tmp_path: Path, callback: WeightGIF, message: str
) -> None:
    watch = Watch()
    with pytest.raises(ValueError, match=message):
        make_trainer(callback, watch).fit(Net(), Loader(), Loader())
    assert not watch.weights
    assert not (tmp_path / "pictures").exists()
