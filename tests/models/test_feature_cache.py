"""Cached features give the same results, and the backbone runs once."""

import copy
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from shared import quiet_trainer
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import PretrainedInception, PretrainedResNet
from lightning_cifar.models.feature_cache import FeatureCache, image_keys
from lightning_cifar.models.transfer import Transfer

NUM_TRAIN, NUM_VAL, EPOCHS = 40, 20, 3


def fit(tmp_path: Path, cache: str, *, model: dict[str, Any] | None = None, **kwargs: Any) -> tuple[Transfer, int]:
    """Return the trained module, and the number of images that its first layer processed."""
    torch.manual_seed(0)
    settings = {"weights": None, "input_size": 32, "lr": 0.1, "momentum": 0.9, "schedule": "cosine"}
    module = PretrainedResNet(**{**settings, "cache": cache, **(model or {})})
    return module, train(tmp_path, module, **kwargs)


def train(tmp_path: Path, module: Transfer, *, max_epochs: int = EPOCHS, loaders: Any = None, **kwargs: Any) -> int:
    seen = 0

    def count(_: object, given: tuple[torch.Tensor]) -> None:
        nonlocal seen
        seen += len(given[0])

    first = next(layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    hook = first.register_forward_pre_hook(count)
    shown = {key: kwargs.pop(key) for key in ("callbacks", "precision", "limit_train_batches") if key in kwargs}
    settings = {"num_train": NUM_TRAIN, "num_val": NUM_VAL, "batch_size": 16, "augment": [], "seed": 0, **kwargs}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar="callbacks" in shown,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **shown,
    )
    if loaders is None:
        trainer.fit(module, SyntheticDataModule(**settings))
    else:
        trainer.fit(module, *loaders)
    hook.remove()
    return seen


def assert_same(one: Transfer, other: Transfer, tolerance: float = 1e-6) -> None:
    for (name, value), expected in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (value - expected).abs().max() <= tolerance, name


@pytest.mark.parametrize("cache", ["auto", "memory", "file"])
def test_cached_features_give_equal_results_and_the_backbone_runs_once(
    cache: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, seen = fit(tmp_path, "never")
    assert seen == EPOCHS * (NUM_TRAIN + NUM_VAL)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        cached, seen = fit(tmp_path, cache)
    assert seen == NUM_TRAIN + NUM_VAL
    assert_same(cached, plain)
    assert cached.trainer.callback_metrics["val/loss"] == pytest.approx(plain.trainer.callback_metrics["val/loss"])
    assert f"features of {NUM_TRAIN + NUM_VAL} images were computed once" in caplog.text
    assert not list(tmp_path.iterdir())  # the file is removed with the run


def test_frozen_stages_are_cached_if_later_stages_are_trained(tmp_path: Path) -> None:
    settings = {"train": ["layer4"], "backbone_lr_ratio": 0.1}
    plain, _ = fit(tmp_path, "never", model=settings)
    cached, seen = fit(tmp_path, "auto", model=settings)
    assert seen == NUM_TRAIN + NUM_VAL
    assert_same(cached, plain)


def test_augmented_views_are_cached_once_each(tmp_path: Path) -> None:
    views = {"augment": ["flip", {"crop": 4}], "num_views": 2}
    plain, _ = fit(tmp_path, "never", **views)
    cached, seen = fit(tmp_path, "auto", **views)
    assert seen == 2 * NUM_TRAIN + NUM_VAL
    assert_same(cached, plain)


@pytest.mark.parametrize(
    ("settings", "seen_in_training", "message"),
    [
        ({"augment": ["flip"]}, EPOCHS * NUM_TRAIN, "augmentation changes the images"),
        ({"model": {"mixup": 0.2}}, EPOCHS * NUM_TRAIN, "mixup and cutmix change"),
        ({"augment": ["flip"], "num_views": 3}, EPOCHS * NUM_TRAIN, ""),
        ({"limit_train_batches": 2}, EPOCHS * 32, ""),
        ({"model": {"train": "all"}}, EPOCHS * (NUM_TRAIN + NUM_VAL) - NUM_VAL, ""),
    ],
)
def test_images_that_do_not_recur_are_not_cached(
    settings: dict[str, Any], seen_in_training: int, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        _, seen = fit(tmp_path, "auto", **settings)
    assert seen == seen_in_training + NUM_VAL  # validation images are cached in any case
    assert message in caplog.text


def test_large_features_are_not_cached_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lightning_cifar.models.feature_cache.LIMIT", (NUM_TRAIN + NUM_VAL) * 512 * 4 - 1)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        _, seen = fit(tmp_path, "auto")
    assert seen == EPOCHS * (NUM_TRAIN + NUM_VAL) + 16  # one batch, to estimate the size
    assert "--model.cache file" in caplog.text
    assert fit(tmp_path, "memory")[1] == NUM_TRAIN + NUM_VAL


@pytest.mark.slow
def test_both_heads_of_inception_use_cached_features(tmp_path: Path) -> None:
    results = []
    for cache in ("never", "memory"):
        torch.manual_seed(0)
        module = PretrainedInception(weights=None, lr=1e-4, cache=cache)  # type: ignore[arg-type]
        seen = train(tmp_path, module, max_epochs=2, num_train=2, num_val=2, batch_size=2)
        results.append((module, seen))
    assert [seen for _, seen in results] == [8, 4]
    assert_same(results[0][0], results[1][0])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    unbroken, _ = fit(tmp_path, "auto")

    class StopAfterTwo(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    fit(tmp_path, "auto", callbacks=[StopAfterTwo()])
    torch.manual_seed(1)
    module = PretrainedResNet(weights=None, input_size=32, lr=0.1, momentum=0.9, schedule="cosine")
    data = SyntheticDataModule(num_train=NUM_TRAIN, num_val=NUM_VAL, batch_size=16, augment=[], seed=0)
    trainer = quiet_trainer(max_epochs=EPOCHS, default_root_dir=tmp_path, num_sanity_val_steps=0)
    trainer.fit(module, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert_same(module, unbroken, tolerance=0.0)


def test_external_loaders_are_cached_on_request(tmp_path: Path) -> None:
    images, labels = torch.randn(NUM_TRAIN, 3, 32, 32), torch.arange(NUM_TRAIN) % 10
    data = TensorDataset(images, labels)
    for cache, expected in (("auto", 2 * EPOCHS * NUM_TRAIN), ("memory", 2 * NUM_TRAIN)):
        loaders = DataLoader(data, 16, shuffle=True), DataLoader(data, 16)
        assert fit(tmp_path, cache, loaders=loaders)[1] == expected


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_both_progress_bars(bar: type[pl.Callback], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, "memory", callbacks=[bar()], max_epochs=2)
    captured = capfd.readouterr()
    assert "Features" in captured.out + captured.err or bar is RichProgressBar  # which shows nothing without a terminal


def test_keys_depend_only_on_pixels() -> None:
    images = torch.randn(9, 3, 7, 5)
    keys = image_keys(images)
    assert keys.shape == (9, 2)
    assert len(set(keys.flatten().tolist())) == 18
    assert torch.equal(keys, image_keys(images.to(memory_format=torch.channels_last)))
    assert torch.equal(keys, torch.cat([image_keys(images[:4]), image_keys(images[4:])]))
    changed = images.clone()
    changed[3, 2, 6, 4] = torch.nextafter(changed[3, 2, 6, 4], torch.tensor(9.0))
    assert (image_keys(changed) != keys).all(1).tolist() == [i == 3 for i in range(9)]
    for dtype in (torch.bfloat16, torch.float64, torch.uint8):
        assert len(set(image_keys((images * 50).to(dtype))[:, 0].tolist())) == 9


def test_find_returns_features_only_if_all_images_are_cached(tmp_path: Path) -> None:
    images = torch.randn(10, 3, 4, 4)
    features = torch.arange(20.0).view(10, 2)
    for path in (None, tmp_path / "run" / "features.bin"):
        cache = FeatureCache(path)
        cache.add(images[:6], features[:6])
        cache.add(images[6:], features[6:])
        cache.close()
        order = torch.tensor([7, 0, 7, 3])
        found = cache.find(images[order])
        assert found is not None
        assert torch.equal(found, features[order])
        assert cache.find(torch.cat([images[:2], torch.randn(1, 3, 4, 4)])) is None
        assert (cache.num_images, cache.nbytes) == (10, 80)
        assert copy.deepcopy({"of a model": cache})["of a model"] is cache  # a learning-rate sweep trains copies
    assert (tmp_path / "run" / "features.bin").is_file()
    del cache
    assert not (tmp_path / "run" / "features.bin").exists()
