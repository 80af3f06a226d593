"""Pipelines of albumentations from YAML and JSON files: every mistake is an error, nothing is executed."""

from __future__ import annotations

import inspect
import json
import os
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cifar.errors import did_you_mean, one_line
from lightning_cifar.files.paths import expand_user
from lightning_cifar.files.reading import MissingFileError, UnreadableFileError, parse_yaml, read_text

if TYPE_CHECKING:
    import albumentations

# Base classes, and classes that plain values cannot describe.
_NOT_FOR_FILES = {
    "BaseCompose",
    "BasicTransform",
    "DualTransform",
    "ImageOnlyTransform",
    "Transform3D",
    "Lambda",
    "ReplayCompose",
}
_LARGEST = 1 << 20  # bytes
AT_THE_END = ("Normalize", "ToTensorV2")


def load_pipeline(source: str | Path) -> albumentations.Compose:
    """Build the pipeline that a file describes.

    The file is JSON if its name ends in ``.json``, and YAML otherwise. It contains the output of
    ``albumentations.save``, or a list of names with their arguments::

        - HorizontalFlip: {p: 0.5}
        - OneOf:
            p: 0.3
            transforms: [Blur, {Affine: {rotate: [-10, 10]}}]
        - Normalize: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
        - ToTensorV2

    Only transforms and compositions of albumentations are allowed. Normalize and ToTensorV2 are optional.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be read, a transform or an argument is unknown, a value is out of range, or
            albumentations is not installed.
    """
    path = expand_user(source)
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
            raise ValueError("the file must contain a list of transforms, such as - HorizontalFlip: {p: 0.5}")
        if not arguments.get("transforms"):
            raise ValueError("the list of transforms is empty: add one, such as - HorizontalFlip: {p: 0.5}")
        pipeline = _build(name, arguments, known, outermost=True)
        _check_the_end(pipeline)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error
    except RecursionError as error:  # a YAML entry can contain itself
        raise ValueError(f"{path} is nested too deeply.") from error
    return pipeline


def _read(path: Path) -> object:
    try:
        text = read_text(path, limit=_LARGEST, follow=True)
        return json.loads(text) if path.suffix == ".json" else parse_yaml(path, text)
    except MissingFileError as error:
        raise FileNotFoundError(f"{path} does not exist: pass a YAML file with an albumentations pipeline.") from error
    except UnreadableFileError as error:
        raise ValueError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {one_line(error)}.") from error


def _transforms() -> dict[str, Any]:
    """Return the classes that are allowed in a file, by name."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import asks a server for the newest version
    try:
        import albumentations  # slow: seconds
    except ImportError as error:
        raise ValueError(
            f"albumentations cannot be imported ({one_line(error)}): pip install albumentations==2.0.8"
        ) from error
    bases = (albumentations.BasicTransform, albumentations.BaseCompose)
    return {
        name: value
        for name, value in vars(albumentations).items()
        if isinstance(value, type) and issubclass(value, bases) and name not in _NOT_FOR_FILES
    }


def _name_and_arguments(item: object) -> tuple[str, dict[str, Any]]:
    """Split an entry: a name, a name with its arguments, or the saved form."""
    name, arguments = item, None
    if isinstance(item, Mapping) and "__class_fullname__" in item:
        name = item["__class_fullname__"]
        arguments = {key: value for key, value in item.items() if key != "__class_fullname__"}
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
        hint = did_you_mean(name, known) or " Use a name from albumentations, such as HorizontalFlip"
        raise ValueError(f"unknown transform {name!r}.{hint}")
    kind = known[name]
    accepted = [parameter for parameter in inspect.signature(kind).parameters if parameter != "strict"]
    for key in arguments:
        if key not in accepted:
            hint = did_you_mean(str(key), accepted)
            raise ValueError(f"{name} has no argument {key!r}.{hint} It takes {', '.join(accepted)}")
    if "transforms" in accepted:
        arguments = {**arguments, "transforms": _build_all(name, arguments, known, outermost=outermost)}
        _check_composition(name, arguments)
    with warnings.catch_warnings():
        for category in (UserWarning, RuntimeWarning):  # albumentations only warns and drops the value
            warnings.simplefilter("error", category)
        try:
            made = kind(**arguments)
        except Exception as error:
            raise ValueError(f"{name}: {_reason(error)}") from error
    if "transforms" not in accepted and ("image" not in made.available_keys or made.targets_as_params):
        needed = ", ".join(made.targets_as_params) or "a volume"
        raise ValueError(f"{name} needs {needed}, but the data are images only: remove it")
    return made


def _build_all(name: str, arguments: Mapping[str, Any], known: Mapping[str, Any], *, outermost: bool) -> list[Any]:
    items = arguments.get("transforms")
    if not isinstance(items, list) or not items:
        raise ValueError(f"{name}: transforms (={reprlib.repr(items)}) must be a list of transforms")
    parts = [_name_and_arguments(item) for item in items]
    for inner, _ in parts:
        if inner in AT_THE_END and not outermost:
            raise ValueError(f"{inner} must be at the end of the file, not inside {name}: every image needs it")
    return [_build(*part, known) for part in parts]


def _check_composition(name: str, arguments: Mapping[str, Any]) -> None:
    """Check values that albumentations does not check."""
    p = arguments.get("p", 1.0)
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{name}: p (={p!r}) must be between 0 and 1")
    n = arguments.get("n", 1)
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"{name}: n (={n!r}) must be at least 1")


def _check_the_end(pipeline: albumentations.Compose) -> None:
    """Check that Normalize and ToTensorV2 apply to every image and that nothing follows the tensor."""
    names = [type(step).__name__ for step in pipeline.transforms]
    for name, step in zip(names, pipeline.transforms, strict=True):
        if name in AT_THE_END and min(step.p, pipeline.p) < 1:
            raise ValueError(f"{name}: p (={min(step.p, pipeline.p)}) must be 1: every image needs it")
    if "ToTensorV2" in names[:-1]:
        raise ValueError("ToTensorV2 must come last: the other transforms work on arrays")


def _reason(error: Exception) -> str:
    """Return the message of a constructor in one line."""
    details = getattr(error.__cause__, "errors", None)  # of pydantic, whose text has many lines
    if not callable(details):
        return one_line(error).rstrip(".")
    lines: dict[str, str] = {}
    for detail in details():
        name = ".".join(map(str, detail["loc"][:1]))
        value = "" if detail["type"] == "missing" else f" (={reprlib.repr(detail['input'])})"
        lines.setdefault(name, f"{name}{value}: {detail['msg'].removeprefix('Value error, ')}".lstrip(": "))
    return one_line("; ".join(lines.values()))
