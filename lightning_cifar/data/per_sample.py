"""Augmentation sample by sample with albumentations: a pipeline out of a file, and the loader that runs it.

The law of the batch loader holds here too: what a sample becomes is a pure function of (seed, epoch, sample index), so
that workers, batch sizes, ranks and resumes do not change it. Before each sample the pipeline's random numbers start
anew from that address.

``Compose.set_random_seed`` is not the way to do that. It gives each transform generators of its own from one seed,
so that all of them toss the same coin: two flips with p = 0.5 come together or not at all. It also costs 77 us for five
transforms, where a sample costs 120 us (one core of an AVX-512 machine, albumentations 2.0.8). One pair of generators
that all transforms share draws on from transform to transform, and starts anew in 6 us.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
import random
import reprlib
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_cifar.data.augment import Pipeline
from lightning_cifar.data.batches import BatchLoader
from lightning_cifar.data.draws import key

if TYPE_CHECKING:
    import albumentations

# The stream of these numbers: ORDER is -1, and the augmentations of whole batches count from 0.
PER_SAMPLE = -2

_MASK = (1 << 64) - 1
_ZEROS = np.zeros(4, np.uint64)
# Bases, and what cannot be described by plain values.
_NOT_FOR_FILES = {
    "BaseCompose",
    "BasicTransform",
    "DualTransform",
    "ImageOnlyTransform",
    "Transform3D",
    "Lambda",
    "ReplayCompose",
}
_AT_THE_END = ("Normalize", "ToTensorV2")

# Of one batch: the epoch and the sample indices. The workers learn the epoch from it.
_Address: TypeAlias = tuple[int, list[int]]


def load_pipeline(source: str | Path) -> albumentations.Compose:
    """The pipeline that a file describes.

    The file is YAML, or JSON where its name ends so. It holds what ``albumentations.save`` writes, or a list of names
    with their arguments::

        - HorizontalFlip: {p: 0.5}
        - OneOf:
            p: 0.3
            transforms: [Blur, {Affine: {rotate: [-10, 10]}}]
        - Normalize: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
        - ToTensorV2

    Only albumentations' transforms and compositions of them can be named. Normalize and ToTensorV2 may be left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or names a transform or an argument that does not exist, or a value out of
            range; or albumentations is not installed.
    """
    path = Path(source)
    content = _read(path)
    try:
        known = _transforms()
        if isinstance(content, Mapping):  # as albumentations saves it
            content = content.get("transform", content)
            name, arguments = _name_and_arguments(content)
            if name != "Compose":
                name, arguments = "Compose", {"transforms": [content]}
        elif isinstance(content, list):
            name, arguments = "Compose", {"transforms": content}
        else:
            raise ValueError("the file must hold a list of transforms, such as - HorizontalFlip: {p: 0.5}")
        if not arguments.get("transforms"):
            raise ValueError("there is no transform in it; a line such as - HorizontalFlip: {p: 0.5} is one")
        pipeline = _build(name, arguments, known, outermost=True)
        _check_the_end(pipeline)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error
    except RecursionError as error:  # an entry can contain itself in YAML
        raise ValueError(f"{path}: is nested too deeply.") from error
    return pipeline


def _read(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: there is no such file; give an albumentations pipeline in YAML.") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML of plain values"
        raise ValueError(f"{path}: is not {kind}: {_one_line(error)}.") from error


def _transforms() -> dict[str, Any]:
    """The classes that a file may name, by name."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks a server for news otherwise
    try:
        import albumentations  # takes seconds
    except ImportError as error:
        raise ValueError(
            f"albumentations cannot be imported ({_one_line(error)}): pip install 'lightning-cifar[albumentations]'"
        ) from error
    bases = (albumentations.BasicTransform, albumentations.BaseCompose)
    return {
        name: value
        for name, value in vars(albumentations).items()
        if isinstance(value, type) and issubclass(value, bases) and name not in _NOT_FOR_FILES
    }


def _name_and_arguments(item: object) -> tuple[str, dict[str, Any]]:
    """Of one entry: a name, a name with its arguments, or the saved form."""
    name, arguments = item, None
    if isinstance(item, Mapping) and "__class_fullname__" in item:
        name = item["__class_fullname__"]
        arguments = {word: value for word, value in item.items() if word != "__class_fullname__"}
        if isinstance(name, str) and name.startswith("albumentations."):
            name = name.rsplit(".", 1)[-1]
    elif isinstance(item, Mapping) and len(item) == 1:
        name, arguments = next(iter(item.items()))
    if not isinstance(name, str):
        raise ValueError(
            f"{reprlib.repr(item)} must be a name, or one name with its arguments, such as HorizontalFlip: {{p: 0.5}}"
        )
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ValueError(f"{name}: {reprlib.repr(arguments)} must be arguments with their names, such as {{p: 0.5}}")
    return name, dict(arguments or {})


def _build(name: str, arguments: dict[str, Any], known: Mapping[str, Any], *, outermost: bool = False) -> Any:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "albumentations' own names are known, such as HorizontalFlip"
        raise ValueError(f"there is no transform {name!r}; {hint}")
    kind = known[name]
    accepted = [word for word in inspect.signature(kind).parameters if word != "strict"]
    for word in arguments:
        if word not in accepted:
            near = difflib.get_close_matches(str(word), accepted, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"{name} has no argument {word!r}; {hint}It takes {', '.join(accepted)}")
    if "transforms" in accepted:
        arguments = {**arguments, "transforms": _build_all(name, arguments, known, outermost=outermost)}
        _check_composition(name, arguments)
    with warnings.catch_warnings():
        for category in (UserWarning, RuntimeWarning):  # it warns, drops the value and goes on
            warnings.simplefilter("error", category)
        try:
            made = kind(**arguments)
        except Exception as error:
            raise ValueError(f"{name}: {_reason(error)}") from error
    if "transforms" not in accepted and ("image" not in made.available_keys or made.targets_as_params):
        needed = ", ".join(made.targets_as_params) or "a volume"
        raise ValueError(f"{name} works on {needed}, and there are images alone: take it out")
    return made


def _build_all(name: str, arguments: Mapping[str, Any], known: Mapping[str, Any], *, outermost: bool) -> list[Any]:
    items = arguments.get("transforms")
    if not isinstance(items, list) or not items:
        raise ValueError(f"{name}: transforms (={reprlib.repr(items)}) must be a list of transforms")
    parts = [_name_and_arguments(item) for item in items]
    for inner, _ in parts:
        if inner in _AT_THE_END and not outermost:
            raise ValueError(f"{inner} must stand at the end of the file, not inside {name}: every image needs it")
    return [_build(*part, known) for part in parts]


def _check_composition(name: str, arguments: Mapping[str, Any]) -> None:
    """What albumentations itself leaves unchecked."""
    p = arguments.get("p", 1.0)
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{name}: p (={p!r}) must be a probability, between 0 and 1")
    n = arguments.get("n", 1)
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"{name}: n (={n!r}) must be at least 1")


def _check_the_end(pipeline: albumentations.Compose) -> None:
    """Normalize and ToTensorV2 reach every image, and nothing comes after the tensor."""
    names = [type(step).__name__ for step in pipeline.transforms]
    for name, step in zip(names, pipeline.transforms, strict=True):
        if name in _AT_THE_END and min(step.p, pipeline.p) < 1:
            raise ValueError(f"{name}: p (={min(step.p, pipeline.p)}) must be 1: every image needs it")
    if "ToTensorV2" in names[:-1]:
        raise ValueError("ToTensorV2 must come last: transforms work on arrays")


def _reason(error: Exception) -> str:
    """What a constructor complains about, in one line."""
    details = getattr(error.__cause__, "errors", None)  # pydantic's, over many lines otherwise
    if not callable(details):
        return _one_line(error).rstrip(".")
    lines: dict[str, str] = {}
    for detail in details():
        word = ".".join(map(str, detail["loc"][:1]))
        value = "" if detail["type"] == "missing" else f" (={reprlib.repr(detail['input'])})"
        lines.setdefault(word, f"{word}{value}: {detail['msg'].removeprefix('Value error, ')}".lstrip(": "))
    return _one_line("; ".join(lines.values()))


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


class PerSampleLoader(BatchLoader):
    """Iterates over (images, labels): float32 (N, C, H, W), normalised, and int64 (N,), on the CPU.

    Samples are the same for any number of workers, any batch size and any number of ranks; orders are those of
    ``BatchLoader``. A pipeline without Normalize leaves grey levels, or numbers in [0, 1] after ToFloat: they are
    normalised here.

    Args:
        images: uint8 (M, H, W, C).
        labels: int64 (M,).
        source: File of the pipeline, see ``load_pipeline``.
        mean: Per channel, of images in [0, 1].
        std: Likewise.
        batch_size: Samples in a batch of each rank.
        seed: Orders the epochs and draws the augmentations.
        shuffle: A new order each epoch.
        rank: Which of ``world_size`` processes this is.
        world_size: Number of processes.
        num_workers: Processes that augment; 0 augments in this one.

    Raises:
        ValueError: If a value is out of range, the file is at fault, or its Normalize is not by ``mean`` and ``std``.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        *,
        source: str | Path,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers (={num_workers}) must not be negative.")
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"images ({images.dtype} {images.shape}) must be uint8 (M, H, W, C).")
        if not len(mean) == len(std) == images.shape[-1]:
            raise ValueError(f"mean (={mean}) and std (={std}) must have {images.shape[-1]} values, one a channel.")
        super().__init__(
            torch.from_numpy(images),
            torch.from_numpy(labels),
            pipeline=Pipeline([], mean=mean, std=std),
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
        )
        pipeline = load_pipeline(source)
        _check_normalisation(pipeline, mean, std, source)
        self.num_workers = num_workers
        self._samples = _Samples(images, pipeline, seed=seed, name=str(source))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, order = self.epoch, self.order().tolist()
        batches = [(epoch, order[start : start + self.batch_size]) for start in range(0, len(order), self.batch_size)]
        for (_, indices), images in zip(batches, self._augmented(batches), strict=True):
            if isinstance(images, str):
                raise ValueError(images)
            yield self._finish(images), self.labels[indices]

    def _augmented(self, batches: list[_Address]) -> DataLoader[Tensor | str]:
        """The batches in their order, out of workers that live for one epoch.

        A fork costs 0.05 s and shares the images. Workers that live on hang for 5 s each at their end, where the
        garbage collector finds them in a cycle, as everything that a Trainer holds is in one.
        """
        forks = self.num_workers > 0 and sys.platform == "linux"  # not the default of every version of Python
        return DataLoader(
            self._samples,
            sampler=batches,
            batch_size=None,  # each address is a whole batch already
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            worker_init_fn=_use_one_thread,
            multiprocessing_context="fork" if forks else None,
            generator=torch.Generator(),  # it would draw from the global one, and so change the run
        )

    def _finish(self, images: Tensor) -> Tensor:
        if self._samples.normalised:
            return images.permute(0, 3, 1, 2)
        self.pipeline.load(images[:0])  # for the size that the augmentation gave them
        return self.pipeline.normalise(images)


class _Samples(Dataset["Tensor | str"]):
    """Augmented batches by (epoch, sample indices): uint8 or float32 (N, H, W, C), or what went wrong, in one line."""

    def __init__(
        self, images: npt.NDArray[np.uint8], pipeline: albumentations.Compose, *, seed: int, name: str
    ) -> None:
        self.images, self.pipeline, self.seed, self.name = images, pipeline, seed, name
        self.normalised = any(type(step).__name__ == "Normalize" for step in pipeline.transforms)
        self.random = random.Random()
        self.generator = np.random.Generator(np.random.Philox())
        pipeline.set_random_state(self.generator, self.random)  # reaches the nested ones too

    def __getitem__(self, address: _Address) -> Tensor | str:
        epoch, indices = address
        arrays = []
        for index in indices:
            try:
                arrays.append(self.sample(epoch, index))
            except Exception as error:  # from a worker it would come over many lines
                return f"{self.name}: sample {index} in epoch {epoch}: {_one_line(error)}"
        if len(shapes := dict.fromkeys(array.shape for array in arrays)) > 1:
            first, second = list(shapes)[:2]
            return (
                f"{self.name}: images come out in different shapes, {first} and {second}: "
                "end with one size, such as - Resize: {height: 32, width: 32}"
            )
        return torch.from_numpy(np.stack(arrays))

    def sample(self, epoch: int, index: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
        """One augmented image (H, W, C): normalised where the pipeline does so, otherwise grey levels 0 to 255."""
        self._start(key(self.seed, epoch, PER_SAMPLE, index) & _MASK)
        image = self.pipeline(image=self.images[index].copy())["image"]  # a transform may write in place
        array: npt.NDArray[Any] = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else np.asarray(image)
        if array.ndim == 2:
            array = array[..., None]
        if array.shape[-1] != self.images.shape[-1]:
            raise ValueError(f"{array.shape[-1]} channels come out where {self.images.shape[-1]} came in")
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(np.float32, copy=False)
            return array if self.normalised else array * np.float32(255)
        if array.dtype != np.uint8 or self.normalised:
            raise ValueError(f"{array.dtype} images come out, where uint8, or float32 from ToFloat or Normalize, must")
        return array

    def _start(self, value: int) -> None:
        """Start the random numbers anew, as new generators would."""
        self.random.seed(value)
        self.generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": _ZEROS, "key": np.array([value, 0], np.uint64)},
            "buffer": _ZEROS,
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }


def _as_it_is(batch: Any) -> Any:
    return batch


def _use_one_thread(worker: int) -> None:
    import cv2  # albumentations stands on it

    cv2.setNumThreads(0)


def _check_normalisation(
    pipeline: albumentations.Compose, mean: Sequence[float], std: Sequence[float], source: str | Path
) -> None:
    """Validation images are normalised by the data's mean and std: the training images must be so too."""
    for step in pipeline.transforms:
        if type(step).__name__ == "Normalize":
            plain = step.normalization == "standard" and step.max_pixel_value == 255
            if not (plain and _agree(step.mean, mean) and _agree(step.std, std)):
                raise ValueError(
                    f"{source}: Normalize (mean {step.mean}, std {step.std}, {step.normalization}) differs from the "
                    f"data's mean {tuple(mean)} and std {tuple(std)}, as validation has: leave it out or match them."
                )


def _agree(given: float | tuple[float, ...] | None, wanted: Sequence[float]) -> bool:
    values = np.atleast_1d(np.asarray(given, np.float64))
    return values.size in (1, len(wanted)) and np.allclose(values, wanted, rtol=0, atol=1e-6)
