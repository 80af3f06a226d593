"""The sheets show the drops of the current module, and the training does not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from lightning_cifar import plots
from lightning_cifar.callbacks import OcclusionMaps, occlusion_maps

MakeTrainer = Callable[..., Trainer]


class Looker(LightningModule):
    """Its logits depend only on the left half of the image; it has dropout and batch norm."""

    def __init__(self, train_lr: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.layer = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.layer.weight)
        self.lr = train_lr
        self.calls: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(self.training)
        half = images[..., : images.shape[-1] // 2]
        return 4 * self.layer(self.drop(self.norm(half)).mean(dim=(2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@pytest.fixture
def module() -> Looker:
    torch.manual_seed(0)
    return Looker()


@pytest.fixture
def large(data: Any) -> Any:
    """The module's images, 8 x 8 pixels with noise."""
    generator = torch.Generator().manual_seed(0)
    images = data.images.repeat_interleave(4, 2).repeat_interleave(4, 3)
    data.images = images + 0.3 * torch.randn(images.shape, generator=generator)
    return data


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> dict[str, SimpleNamespace]:
    """Arguments of the drawings by the name of the picture."""
    drawn: dict[str, SimpleNamespace] = {}
    last: list[SimpleNamespace] = []

    def draw(rows: Any, **kwargs: Any) -> str:
        last.append(SimpleNamespace(rows=rows, **kwargs))
        return "figure"

    def keep(trainer: Trainer, name: str, figure: str, *, step: int) -> None:
        assert figure == "figure"
        if name in drawn:  # the scale has grown
            assert drawn[name].limit < last[-1].limit
            np.testing.assert_array_equal(drawn[name].rows[0].drops, last[-1].rows[0].drops)
            assert drawn[name].step == step
        drawn[name] = last[-1]
        drawn[name].step = step

    monkeypatch.setattr(plots, "draw_occlusion_maps", draw, raising=False)
    monkeypatch.setattr(occlusion_maps, "save_figure", keep)
    return drawn


def test_the_sheet_shows_images_names_and_drops(
    large: Any, module: Looker, make_trainer: MakeTrainer, sheets: dict[str, SimpleNamespace]
) -> None:
    module.lr = 0.0
    make_trainer(OcclusionMaps((3, 1), window=2, stride=2, fill=0.0, every_n_epochs=1)).fit(module, large)
    (sheet,) = sheets.values()
    assert np.abs([row.drops for row in sheet.rows]).max() <= sheet.limit
    assert f"1 epoch, window of 2 x 2 pixels, colors from -{sheet.limit:g} to {sheet.limit:g}" in sheet.title
    assert sheet.label == "drop of P(true class)"
    x, y = large.images[[3, 1]], large.labels[[3, 1]]
    module.eval()
    with torch.no_grad():
        p = module(x).softmax(1)
        for row, image, true, clean in zip(sheet.rows, x, y, p, strict=True):
            shown = image.movedim(0, -1).numpy() * large.std + large.mean
            np.testing.assert_allclose(row.image, shown.clip(0, 1), atol=1e-6)
            for top, left in ((0, 0), (4, 2), (6, 6)):
                covered = image.clone()
                covered[:, top : top + 2, left : left + 2] = 0
                drop = float(clean[true] - module(covered[None]).softmax(1)[0, true])
                np.testing.assert_allclose(row.drops[top : top + 2, left : left + 2], drop, atol=1e-6)
            assert np.abs(row.drops[:, :4]).max() > 1e-3
            assert np.abs(row.drops[:, 4:]).max() < 1e-6, "the module ignores the right half"
            guess, name = large.class_names[int(clean.argmax())], large.class_names[true]
            assert row.title == f"true {name}, predicted {guess} {float(clean.max()):.2f}"
            assert row.note == f"map of P({name}), {float(clean[true]):.2f} when uncovered"
            assert row.mistake == (guess != name)


def test_a_sheet_each_n_epochs_and_at_the_end(
    large: Any, module: Looker, make_trainer: MakeTrainer, sheets: dict[str, SimpleNamespace]
) -> None:
    make_trainer(OcclusionMaps((0,), every_n_epochs=2), max_epochs=5, num_sanity_val_steps=1).fit(module, large)
    assert list(sheets) == [f"occlusion_maps/epoch_{epoch:03d}" for epoch in (2, 4, 5)]
    first, last = (sheets[f"occlusion_maps/epoch_{epoch:03d}"].rows[0] for epoch in (2, 5))
    np.testing.assert_array_equal(first.image, last.image)
    assert np.abs(first.drops - last.drops).max() > 1e-4, "the module has learnt in between"


def test_a_resumed_run_continues_the_count(
    large: Any, module: Looker, make_trainer: MakeTrainer, tmp_path: Path, sheets: dict[str, SimpleNamespace]
) -> None:
    first = make_trainer(max_epochs=3)
    first.fit(module, large)
    first.save_checkpoint(tmp_path / "a.ckpt")
    again = make_trainer(OcclusionMaps((0,)), max_epochs=4)
    again.fit(Looker(), large, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert list(sheets) == ["occlusion_maps/epoch_004"]
    sheets.clear()
    nothing_left = make_trainer(OcclusionMaps((0,)), max_epochs=3)
    nothing_left.fit(Looker(), large, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert not sheets


@pytest.mark.parametrize(("given", "strength"), [(None, 1.0), (None, 1e-4), (0.25, 1.0)])
def test_all_sheets_of_a_run_have_one_scale_that_fits_the_values(
    large: Any,
    module: Looker,
    make_trainer: MakeTrainer,
    sheets: dict[str, SimpleNamespace],
    tmp_path: Path,
    given: float | None,
    strength: float,
) -> None:
    with torch.no_grad():
        module.layer.weight.mul_(strength)
    module.lr = strength
    callback = OcclusionMaps((0, 1), every_n_epochs=1, limit=given)
    make_trainer(callback, max_epochs=3, default_root_dir=tmp_path).fit(module, large)
    limits = {name: sheet.limit for name, sheet in sheets.items()}
    assert len(limits) == 3
    (limit,) = set(limits.values())
    largest = max(np.abs(row.drops).max() for sheet in sheets.values() for row in sheet.rows)
    if given is None:
        assert max(largest, 0.001) <= limit <= max(2.5 * largest, 0.001)
    else:
        assert limit == given


def test_a_resumed_run_keeps_the_scale_of_its_sheets(
    large: Any, module: Looker, make_trainer: MakeTrainer, sheets: dict[str, SimpleNamespace], tmp_path: Path
) -> None:
    trainer = make_trainer(OcclusionMaps((0,), every_n_epochs=1), max_epochs=1)
    trainer.fit(module, large)
    store = occlusion_maps.frame_store(tmp_path, "occlusion_maps")
    sheet = store.read(1)
    assert sheet is not None
    store.write(1, **(sheet | {"drops": sheet["drops"] * 0 + 0.7}))  # type: ignore[operator]
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    sheets.clear()
    make_trainer(OcclusionMaps((0,), every_n_epochs=1), max_epochs=2).fit(
        module, large, ckpt_path=tmp_path / "a.ckpt", weights_only=True
    )
    assert {name: sheet.limit for name, sheet in sheets.items()} == {"occlusion_maps/epoch_002": 1.0}
    sheets.clear()
    (store.folder / "000001.npz").write_bytes(b"damaged")
    make_trainer(OcclusionMaps((0,), every_n_epochs=1), max_epochs=2).fit(
        module, large, ckpt_path=tmp_path / "a.ckpt", weights_only=True
    )
    assert sheets["occlusion_maps/epoch_002"].limit < 0.7
    sheets.clear()
    make_trainer(OcclusionMaps((0,), every_n_epochs=1), max_epochs=1).fit(module, large)
    assert sheets["occlusion_maps/epoch_001"].limit < 0.7, "a new training in the same folder"


def test_the_predicted_class_where_it_is_wanted_or_nothing_else_is_known(
    large: Any, module: Looker, make_trainer: MakeTrainer, sheets: dict[str, SimpleNamespace]
) -> None:
    module.lr = 0.0
    make_trainer(OcclusionMaps((3,), target="predicted", every_n_epochs=1)).fit(module, large)
    large.labels = nn.functional.one_hot(large.labels, 3).float()
    large.class_names = None
    make_trainer(OcclusionMaps((3,), every_n_epochs=2), max_epochs=2).fit(module, large)
    named, bare = (sheet.rows[0] for sheet in sheets.values())
    assert [sheet.label for sheet in sheets.values()] == ["drop of P(predicted class)"] * 2
    assert named.title.startswith("true automobile, predicted ")
    assert bare.title.startswith("predicted class ")
    assert not bare.mistake
    assert named.note.startswith("map of P(" + named.title.split("predicted ")[1].split(" ")[0])


def test_window_and_stride_follow_the_size_of_the_images(
    large: Any, module: Looker, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    whole = occlusion_maps.occlusion_map

    def keep(*args: Any, **kwargs: Any) -> Any:
        asked.append((kwargs["window"], kwargs["stride"]))
        return whole(*args, **kwargs)

    monkeypatch.setattr(occlusion_maps, "occlusion_map", keep)
    make_trainer(OcclusionMaps((0,), every_n_epochs=1)).fit(module, large)
    large.images = torch.zeros(11, 3, 40, 64)
    make_trainer(OcclusionMaps((0,), every_n_epochs=1)).fit(module, large)
    assert asked == [(2, 8), (2, 1), (10, 64), (10, 2)]  # one window to try, then the sheet


def state_of(module: nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


@pytest.mark.filterwarnings("ignore:Found 1 module.* in eval mode")
def test_the_training_does_not_notice(large: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    def train(*callbacks: OcclusionMaps) -> tuple[list[Tensor], Tensor]:
        torch.manual_seed(0)
        module = Looker()
        module.norm.eval()
        make_trainer(*callbacks, max_epochs=2).fit(module, large)
        assert not module._forward_hooks
        return state_of(module), torch.get_rng_state()

    (plain, plain_state), (watched, watched_state) = train(), train(OcclusionMaps((0, 1), every_n_epochs=1))
    assert all(torch.equal(one, other) for one, other in zip(plain, watched, strict=True))
    assert torch.equal(plain_state, watched_state)
    assert len(list((tmp_path / "pictures/occlusion_maps").iterdir())) == 2


def test_modes_and_gradients_return_after_an_exception(
    large: Any, module: Looker, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*args: object, **kwargs: object) -> None:
        raise RuntimeError("burst")

    flags = {}
    module.on_train_epoch_start = lambda: flags.update(  # type: ignore[method-assign]
        {name: part.training for name, part in module.named_modules()}
    )
    monkeypatch.setattr(plots, "draw_occlusion_maps", burst, raising=False)
    with pytest.raises(RuntimeError, match="burst"):
        make_trainer(OcclusionMaps((0,), every_n_epochs=1)).fit(module, large)
    assert {name: part.training for name, part in module.named_modules()} == flags
    assert torch.is_grad_enabled()
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_files_and_loggers(large: Any, module: Looker, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path, name="", version="")
    make_trainer(OcclusionMaps(range(4), every_n_epochs=1), logger=board, max_epochs=2).fit(module, large)
    names = {path.name for path in (tmp_path / "pictures/occlusion_maps").iterdir()}
    assert names == {"epoch_001.png", "epoch_002.png"}
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("occlusion_maps/epoch_002")] == [6]


@pytest.mark.usefixtures("other_rank")
def test_another_rank_reads_and_draws_nothing(
    large: Any, module: Looker, make_trainer: MakeTrainer, sheets: dict[str, SimpleNamespace]
) -> None:
    make_trainer(OcclusionMaps((99,), every_n_epochs=1)).fit(module, large)
    assert not sheets
    assert all(module.calls), "no pass in evaluation mode"


def test_a_trial_run_leaves_nothing(large: Any, module: Looker, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(OcclusionMaps((0,), every_n_epochs=1), fast_dev_run=True).fit(module, large)
    assert not list(tmp_path.rglob("*.png"))
    assert all(module.calls)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"images": ()}, r"images \(=\[\]\)"),
        ({"images": (0, -1)}, r"images \(=\[0, -1\]\)"),
        ({"window": 0}, r"window \(=0\)"),
        ({"stride": 0}, r"stride \(=0\)"),
        ({"every_n_epochs": 0}, r"every_n_epochs \(=0\)"),
        ({"fill": float("nan")}, r"fill \(=nan\)"),
        ({"limit": 0.0}, r"limit \(=0.0\)"),
    ],
)
def test_settings_out_of_range_are_rejected(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OcclusionMaps(**settings)


def test_unusable_inputs_are_rejected_before_the_first_step(
    large: Any, module: Looker, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(ValueError, match=r"`window` \(=9 x 9\) does not fit into images of 8 x 8"):
        make_trainer(OcclusionMaps((0,), window=9)).fit(module, large)
    with pytest.raises(ValueError, match="image 99 does not exist"):
        make_trainer(OcclusionMaps((99,))).fit(module, large)
    assert not any(module.calls), "no training step"
    large.images = large.images[:, :2]
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        make_trainer(OcclusionMaps((0,))).fit(module, large)
    large.images = torch.zeros(11, 3, 8, 8)
    large.labels = large.labels + 1
    with pytest.raises(ValueError, match="must be from 0 to 2"):
        make_trainer(OcclusionMaps((3,))).fit(module, large)
    module.forward = lambda images: images  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"to logits"):
        make_trainer(OcclusionMaps((0,))).fit(module, large)


@pytest.mark.filterwarnings("ignore:.*Precision 16.*:UserWarning")
def test_a_module_in_half_precision(
    large: Any, module: Looker, make_trainer: MakeTrainer, sheets: dict[str, SimpleNamespace]
) -> None:
    make_trainer(OcclusionMaps((0,), every_n_epochs=1), precision="bf16-true").fit(module, large)
    (sheet,) = sheets.values()
    assert np.isfinite(sheet.rows[0].drops).all()
    assert sheet.rows[0].drops.dtype == np.float32
