"""A sample is a pure function of (seed, epoch, index); invalid and malicious pipeline files are refused."""

import builtins
import json
import os
import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from torch import Tensor

pytest.importorskip("albumentations", reason="albumentations is not installed")

import albumentations

from lightning_cifar.data.albumentations_loader import PerSampleLoader, load_pipeline
from lightning_cifar.data.augment import Pipeline
from lightning_cifar.data.batches import BatchLoader

REFERENCE = Path(__file__).parents[2] / "configs" / "albumentations" / "reference.yaml"
SIZE = 61
IMAGES = np.random.default_rng(0).integers(0, 256, (SIZE, 32, 32, 3), np.uint8)
LABELS = np.arange(SIZE)
HALF = (0.5, 0.5, 0.5)
NESTED = """
- OneOf:
    p: 0.9
    transforms:
      - Sequential: {p: 1.0, transforms: [{HorizontalFlip: {p: 0.5}}, {Affine: {rotate: [-30, 30], p: 0.8}}]}
      - SomeOf: {n: 2, transforms: [{GaussNoise: {p: 0.9}}, {VerticalFlip: {p: 0.5}}, {ChannelShuffle: {p: 0.5}}]}
      - {GridDropout: {fill: random, p: 0.7}}
- RandomBrightnessContrast
"""


def workers(test: Any) -> Any:
    """Ignore warnings of forks (Python) and of more workers than cores (torch)."""
    test = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")(test)
    return pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")(test)


def write(folder: Path, text: str, name: str = "pipeline.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def loader(source: Path = REFERENCE, images: npt.NDArray[np.uint8] = IMAGES, **kwargs: Any) -> PerSampleLoader:
    defaults = {"source": source, "mean": HALF, "std": HALF, "batch_size": 16, "seed": 3}
    return PerSampleLoader(images, LABELS, **{**defaults, **kwargs})


def by_label(batches: PerSampleLoader, epoch: int = 0) -> dict[int, Tensor]:
    batches.set_epoch(epoch)
    return {int(label): image for images, labels in batches for image, label in zip(images, labels, strict=True)}


def assert_same(one: dict[int, Tensor], other: dict[int, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[label], other[label]) for label in one)


# ---------------------------------------------------------------- the law


@workers
@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_images_of_one_process_without_repetition(tmp_path: Path, num_workers: int) -> None:
    # All samples are the same image, turned by an angle: what differs is the augmentation.
    images = np.broadcast_to(IMAGES[0], IMAGES.shape).copy()
    source = write(tmp_path, REFERENCE.read_text().replace("p: 0.45", "p: 1"))
    alone, shared = loader(source, images), loader(source, images, num_workers=num_workers)
    seen = set()
    for epoch in (0, 1, 0):
        got = by_label(shared, epoch)
        assert_same(got, by_label(alone, epoch))
        seen |= {image.numpy().tobytes() for image in got.values()}
    assert len(seen) == 2 * SIZE


def test_nested_transforms_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    source = write(tmp_path, NESTED)
    small, large = loader(source, batch_size=7), loader(source, batch_size=64)
    for epoch in (4, 0):
        assert_same(by_label(small, epoch), by_label(large, epoch))
    one, other = by_label(small, 0), by_label(small, 1)
    assert sum(torch.equal(one[label], other[label]) for label in one) < SIZE / 10


@pytest.mark.parametrize("world_size", [2, 3])
def test_all_ranks_together_have_the_samples_of_one_process(world_size: int) -> None:
    alone = by_label(loader())
    shared: dict[int, Tensor] = {}
    for rank in range(world_size):
        part = by_label(loader(rank=rank, world_size=world_size))
        assert len(part) == SIZE // world_size
        assert not part.keys() & shared.keys()
        shared |= part
    assert_same(shared, {label: alone[label] for label in shared})


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rank", [0, 1])
def test_samples_without_augmentation_equal_those_of_the_batch_loader(tmp_path: Path, shuffle: bool, rank: int) -> None:
    kwargs: dict[str, Any] = {"batch_size": 9, "seed": 5, "shuffle": shuffle, "rank": rank, "world_size": 2}
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    batches = BatchLoader(
        torch.from_numpy(IMAGES), torch.from_numpy(LABELS), pipeline=Pipeline([], mean=mean, std=std), **kwargs
    )
    ours = loader(write(tmp_path, "- NoOp"), mean=mean, std=std, **kwargs)
    assert len(ours) == len(batches)
    for epoch in (0, 2):
        batches.set_epoch(epoch)
        ours.sampler.set_epoch(epoch)
        for (images, labels), (expected, expected_labels) in zip(ours, batches, strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, expected_labels)
            assert images.dtype == torch.float32
            assert images.is_contiguous(memory_format=torch.channels_last)


def test_different_seeds_give_different_samples() -> None:
    one, other = by_label(loader()), by_label(loader(seed=4))
    assert list(one) != list(other)
    assert sum(torch.equal(one[label], other[label]) for label in one) < SIZE / 2


def test_transforms_draw_independently(tmp_path: Path) -> None:
    corner = np.zeros((400, 2, 2, 1), np.uint8)
    corner[:, 0, 0] = 255
    source = write(tmp_path, "[{HorizontalFlip: {p: 0.5}}, {VerticalFlip: {p: 0.5}}]")
    flips = PerSampleLoader(corner, np.arange(400), source=source, mean=[0], std=[1], batch_size=400, seed=0)
    (images, _), *_ = flips
    counts = Counter(images.flatten(1).argmax(1).tolist())
    assert sorted(counts) == [0, 1, 2, 3]
    assert min(counts.values()) > 70  # 100 expected; below 70 once in 5,000 seeds


def test_seeding_is_equivalent_to_new_generators() -> None:
    samples = loader()._samples
    samples.generator.integers(0, 9, 3, np.uint32)  # leaves half a word behind
    samples.random.gauss(0, 1)
    samples._start(2**64 - 7)
    fresh = np.random.Generator(np.random.Philox(key=2**64 - 7))
    np.testing.assert_array_equal(samples.generator.integers(0, 99, 9, np.uint32), fresh.integers(0, 99, 9, np.uint32))
    assert samples.random.gauss(0, 1) == random.Random(2**64 - 7).gauss(0, 1)


@workers
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_can_begin_twice_and_be_left_early(num_workers: int) -> None:
    batches = loader(num_workers=num_workers)
    expected = by_label(loader())
    for (one, _), (other, _) in zip(batches, batches, strict=True):
        assert torch.equal(one, other)
    for _ in batches:
        break
    assert_same(by_label(batches), expected)


def test_global_generators_and_images_are_unchanged() -> None:
    before = IMAGES.copy()
    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    by_label(loader())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert str(np.random.get_state()) == numpy_state  # noqa: NPY002
    np.testing.assert_array_equal(IMAGES, before)


def test_samples_can_be_pickled_for_a_spawned_worker() -> None:
    samples = loader()._samples
    copy = pickle.loads(pickle.dumps(samples))
    assert torch.equal(copy[1, [3, 4, 5]], samples[1, [3, 4, 5]])


# ---------------------------------------------------------------- what a pipeline does


def test_one_transform_equals_the_transform_by_hand(tmp_path: Path) -> None:
    got = by_label(loader(write(tmp_path, "- HorizontalFlip: {p: 1}")))
    for label, image in got.items():
        expected = torch.from_numpy(IMAGES[label][:, ::-1].copy()).permute(2, 0, 1).float() / 127.5 - 1
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("end", ["", "- ToTensorV2", "- Normalize: {mean: [M], std: [S]}", "- ToFloat"])
def test_every_ending_gives_normalised_images(tmp_path: Path, end: str) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    end = end.replace("[M]", str(list(mean))).replace("[S]", str(list(std)))
    for text in dict.fromkeys([end, f"{end}\n- ToTensorV2" if "ToTensor" not in end else end]):
        got = by_label(loader(write(tmp_path, f"- VerticalFlip: {{p: 1}}\n{text}"), mean=mean, std=std))
        expected = (IMAGES[:, ::-1] / 255 - mean) / std
        for label, image in got.items():
            torch.testing.assert_close(image.double(), torch.from_numpy(expected[label]).permute(2, 0, 1), **CLOSE)


CLOSE: dict[str, float] = {"rtol": 0, "atol": 1e-5}


def test_images_may_change_size_and_be_grey(tmp_path: Path) -> None:
    source = write(tmp_path, "- Resize: {height: 20, width: 24}")
    images, _ = next(iter(loader(source, images=IMAGES[..., :1].copy(), mean=[0.5], std=[0.5])))
    assert images.shape == (16, 1, 20, 24)


def test_the_shipped_file_is_the_published_pipeline() -> None:
    pipeline = load_pipeline(REFERENCE)
    names = ["HorizontalFlip", "Affine", "CoarseDropout", "Normalize", "ToTensorV2"]
    assert [type(step).__name__ for step in pipeline.transforms] == names
    flip, affine, dropout, normalise, _ = pipeline.transforms
    assert (flip.p, affine.p, dropout.p) == (0.49, 0.45, 0.435)
    assert affine.translate_percent == {"x": (-0.0625, 0.0625), "y": (-0.0625, 0.0625)}
    assert affine.scale == {"x": (0.9, 1.1), "y": (0.9, 1.1)}
    assert affine.keep_ratio
    assert (affine.rotate, affine.border_mode) == ((-45, 45), 4)
    assert (dropout.num_holes_range, dropout.hole_height_range, dropout.hole_width_range) == (
        (1, 1),
        (16, 16),
        (16, 16),
    )
    assert dropout.fill == 0
    assert normalise.mean == normalise.std == HALF


@pytest.mark.parametrize("name", ["saved.json", "saved.yaml"])
def test_saved_pipelines_are_read(tmp_path: Path, name: str) -> None:
    listed = load_pipeline(write(tmp_path, NESTED))
    path = tmp_path / name
    albumentations.save(listed, path, data_format=path.suffix[1:])
    saved = load_pipeline(path)
    assert saved.to_dict() == listed.to_dict()
    assert_same(by_label(loader(path)), by_label(loader(tmp_path / "pipeline.yaml")))


def test_one_saved_transform_is_read(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(albumentations.to_dict(albumentations.VerticalFlip(p=1))), "one.json")
    assert [type(step).__name__ for step in load_pipeline(tmp_path / "one.json").transforms] == ["VerticalFlip"]


# ---------------------------------------------------------------- errors

BAD = {
    "- HorizontalFlp": r"unknown transform 'HorizontalFlp'\. Did you mean HorizontalFlip\?",
    "- Qqqqqq": r"unknown transform 'Qqqqqq'\. Use a name from albumentations",
    "- CoarseDropout: {max_holes: 8}": r"CoarseDropout has no argument 'max_holes'\..* It takes num_holes_range, ",
    "- CoarseDropout: {hole_heigth_range: [1, 2]}": r"Did you mean hole_height_range\?",
    "- RandomResizedCrop: {height: 32, width: 32}": r"RandomResizedCrop has no argument 'height'\..* It takes size, ",
    "- RandomResizedCrop": r"RandomResizedCrop: size: Field required",
    "- ToTensorV2: {x: 1}": r"ToTensorV2 has no argument 'x'",
    "- HorizontalFlip: {p: 1.5}": r"HorizontalFlip: p \(=1.5\): Input should be less than or equal to 1",
    "- HorizontalFlip: {p: .nan}": r"HorizontalFlip: p \(=nan\): Input should be",
    "- HorizontalFlip: 0.5": r"HorizontalFlip: 0.5 must be arguments with their names",
    "- CoarseDropout: {hole_height_range: [9, 3]}": r"hole_height_range \(=\[9, 3\]\): First value should be less",
    "- Affine: {border_mode: reflect}": r"Affine: border_mode \(='reflect'\): Input should be 0, 1, 2, 3 or 4",
    "- ShiftScaleRotate": r"ShiftScaleRotate: .*Please use Affine",
    "- Normalize: {mean: 0.5, std: 0}": r"Normalize: divide by zero",
    "- OneOf: {p: 3, transforms: [NoOp]}": r"OneOf: p \(=3\) must be between 0 and 1",
    "- SomeOf: {n: 0, transforms: [NoOp]}": r"SomeOf: n \(=0\) must be at least 1",
    "- SomeOf: {n: 2, transforms: [NoOp]}": r"SomeOf: `n` is greater than number of transforms",
    "- OneOf: {transforms: []}": r"OneOf: transforms \(=\[\]\) must be a list of transforms",
    "- OneOf": r"OneOf: transforms \(=None\) must be a list of transforms",
    "- OneOf: {transforms: [{Blurr: {}}]}": r"unknown transform 'Blurr'\. Did you mean Blur\?",
    "- Sequential: {transforms: [Normalize]}": r"Normalize must be at the end of the file, not inside Sequential",
    "- Normalize: {p: 0.5}": r"Normalize: p \(=0.5\) must be 1",
    "[ToTensorV2, NoOp]": r"ToTensorV2 must come last",
    "- MaskDropout": r"MaskDropout needs mask, but the data are images only: remove it",
    "- CoarseDropout3D": r"CoarseDropout3D needs a volume, but the data are images only",
    "- {NoOp: {}, Blur: {}}": r"must be a name, or one name with its arguments",
    "- 3": r"3 must be a name, or one name with its arguments",
    "NoOp": r"the file must contain a list of transforms",
    "": r"the file must contain a list of transforms",
    "[]": r"the list of transforms is empty",
    "{transform: 7}": r"7 must be a name",
    "{version: 1, steps: []}": r"must be a name",
    "- [": r"is not valid YAML",
    "[" * 100_000: r"(is nested too deeply|nesting depth)",  # PyYAML has a limit of its own from 6.0.4 on
}
HOSTILE = {
    "- !!python/object/apply:os.system ['touch owned']": r"the tag .* is refused: only plain values are allowed",
    "!!python/object/new:os.system ['touch owned']": r"only plain values are allowed",
    "- __class__": r"unknown transform '__class__'",
    "- os": r"unknown transform 'os'",
    "- check_for_updates": r"unknown transform 'check_for_updates'",
    "- from_dict: {transform_dict: {}}": r"unknown transform 'from_dict'",
    "- BasicTransform": r"unknown transform 'BasicTransform'",
    "- Lambda: {image: os.system}": r"unknown transform 'Lambda'",
    "- Compose.__init__": r"unknown transform 'Compose.__init__'",
    "- HorizontalFlip: {__class__: 1}": r"HorizontalFlip has no argument '__class__'",
    "transform: {__class_fullname__: os.system, p: 1}": r"unknown transform 'os.system'",
    "transform: {__class_fullname__: albumentations.core.os}": r"unknown transform 'os'",
    "transform: {__class_fullname__: [os]}": r"must be a name",
    "&a [*a]": r"has more than 1,000,000 values",
    "&a [OneOf: {transforms: *a}]": r"has more than 1,000,000 values",
}


@pytest.mark.parametrize(("text", "message"), [*BAD.items(), *HOSTILE.items()], ids=lambda text: text[:30])
def test_a_bad_file_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        load_pipeline(write(tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path / 'pipeline.yaml'}")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_only_small_regular_files_are_read(tmp_path: Path, suffix: str) -> None:
    pipe, device, large = (tmp_path / f"{name}.{suffix}" for name in ("pipe", "device", "large"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    large.write_bytes(b" " * ((1 << 20) + 1))
    for path, reason in {pipe: "not a regular file", device: "not a regular file", large: "is larger than"}.items():
        with pytest.raises(ValueError, match=f"{path.name} cannot be read: it {reason}|it is {reason}"):
            load_pipeline(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.yaml does not exist"):
        load_pipeline(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match=r"cannot be read: it is not a regular file"):
        load_pipeline(tmp_path)
    with pytest.raises(ValueError, match=r"bad.json is not valid JSON: Expecting value"):
        load_pipeline(write(tmp_path, "- NoOp", "bad.json"))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"bytes.yaml cannot be read: byte 0 is not UTF-8"):
        load_pipeline(tmp_path / "bytes.yaml")


def test_a_missing_albumentations_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def find(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "albumentations":
            raise ImportError("No module named 'albumentations'")
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", find)
    with pytest.raises(ValueError, match=r"No module named 'albumentations'\): pip install albumentations==2"):
        load_pipeline(REFERENCE)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_workers": -1}, r"num_workers \(=-1\) must be at least 0"),
        ({"batch_size": 0}, r"batch_size \(=0\) must be at least 1"),
        ({"mean": (0.5,)}, r"mean \(=\(0.5,\)\) and std .* must have 3 values"),
        ({"world_size": 62}, r"61 samples cannot be shared by 62 processes"),
        ({"images": IMAGES[:5]}, r"5 images have 61 labels"),
        ({"images": IMAGES[0]}, r"images \(uint8 \(32, 32, 3\)\) must be uint8 \(M, H, W, C\)"),
        ({"images": IMAGES.astype(np.float32)}, r"images \(float32 .*must be uint8"),
        ({"mean": (0.4, 0.5, 0.6)}, r"Normalize .* differs from mean \(0.4, 0.5, 0.6\) and std"),
    ],
)
def test_arguments_out_of_range(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(**kwargs)


@workers
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- RandomScale: {scale_limit: 0.5, p: 1}",
            r"augmented images have different shapes, \(\d+, \d+, 3\) and .*Resize",
        ),
        ("- RandomCrop: {height: 40, width: 40}", r"sample \d+ in epoch 0: Crop size .* exceeds image"),
        (
            "- ToGray: {num_output_channels: 1, p: 1}",
            r"sample \d+ in epoch 0: the augmented image has 1 channels instead of 3",
        ),
        ("[ToFloat, FromFloat: {dtype: uint16}]", r"the augmented image is uint16"),
    ],
    ids=["sizes", "crop", "channels", "dtype"],
)
def test_a_sample_that_fails_is_reported_in_one_line(tmp_path: Path, text: str, message: str, num_workers: int) -> None:
    with pytest.raises(ValueError, match=message) as error:
        by_label(loader(write(tmp_path, text), num_workers=num_workers))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments", ["mean: [0.5, 0.5], std: 0.5", "mean: 0.5, std: 0.4", "mean: 0.5, std: 0.5, normalization: image", ""]
)
def test_training_and_validation_must_be_normalised_alike(tmp_path: Path, arguments: str) -> None:
    with pytest.raises(ValueError, match=r"pipeline.yaml: Normalize \(mean .* differs from mean \(0.5, 0.5, 0.5"):
        loader(write(tmp_path, f"- Normalize: {{{arguments}}}"))
    by_label(loader(write(tmp_path, "- Normalize: {mean: 0.5, std: 0.5}")))


def test_the_shipped_experiment_names_the_shipped_pipeline() -> None:
    root = REFERENCE.parents[2]
    arguments = yaml.safe_load((root / "configs/reference/dilated_net_augmented.yaml").read_text())["data"]["init_args"]
    assert root / arguments["albumentations"] == REFERENCE
    loader(root / arguments["albumentations"], mean=arguments["mean"], std=arguments["std"])
