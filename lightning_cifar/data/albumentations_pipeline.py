"""Pipelines of albumentations out of YAML and JSON files: every mistake is an error, nothing is executed."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cifar.files.paths import expand_user
from lightning_cifar.files.reading import MissingFileError, UnreadableFileError, parse_yaml, read_text

if TYPE_CHECKING:
    import albumentations

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
_LARGEST = 1 << 20  # bytes
AT_THE_END = ("Normalize", "ToTensorV2")


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
        text = read_text(path, limit=_LARGEST, follow=True)
        return json.loads(text) if path.suffix == ".json" else parse_yaml(path, text)
    except MissingFileError as error:
        raise FileNotFoundError(f"{path}: there is no such file; give an albumentations pipeline in YAML.") from error
    except UnreadableFileError as error:
        raise ValueError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON: {one_line(error)}.") from error


def _transforms() -> dict[str, Any]:
    """The classes that a file may name, by name."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks a server for news otherwise
    try:
        import albumentations  # takes seconds
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
        if inner in AT_THE_END and not outermost:
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
        if name in AT_THE_END and min(step.p, pipeline.p) < 1:
            raise ValueError(f"{name}: p (={min(step.p, pipeline.p)}) must be 1: every image needs it")
    if "ToTensorV2" in names[:-1]:
        raise ValueError("ToTensorV2 must come last: transforms work on arrays")


def _reason(error: Exception) -> str:
    """What a constructor complains about, in one line."""
    details = getattr(error.__cause__, "errors", None)  # pydantic's, over many lines otherwise
    if not callable(details):
        return one_line(error).rstrip(".")
    lines: dict[str, str] = {}
    for detail in details():
        word = ".".join(map(str, detail["loc"][:1]))
        value = "" if detail["type"] == "missing" else f" (={reprlib.repr(detail['input'])})"
        lines.setdefault(word, f"{word}{value}: {detail['msg'].removeprefix('Value error, ')}".lstrip(": "))
    return one_line("; ".join(lines.values()))


def one_line(message: object) -> str:
    return " ".join(str(message).split())
