"""Compares plain values with types, for files with untrusted content."""

from __future__ import annotations

import types
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

_WORDS = {str: "text", int: "an integer", float: "a number", bool: "true or false", type(None): "null"}

_HUGE = 1 << 63  # float() or NumPy may refuse larger integers


def mismatch(value: object, shape: Any, key: str = "") -> str | None:
    """Return an error with the key, the value and the required type; None if the value has the type.

    Args:
        value: Plain value from a JSON or YAML reader.
        shape: ``str``, ``int`` (of 64 bits), ``float`` (integers are allowed too), ``bool``, ``None``, ``Any``,
            ``list[X]``, ``dict[str, X]``, unions, literals, and TypedDicts, whose ``NotRequired`` keys are optional.
        key: Key of the value, such as ``metrics.val/loss``.

    Example:
        >>> mismatch({"seeds": [0, "1"]}, dict[str, list[int]])
        "seeds.1 (='1') must be an integer"
        >>> mismatch({"seeds": [0, 1]}, dict[str, list[int]])
    """
    origin, parts = get_origin(shape), get_args(shape)
    if shape is Any or shape is object:
        return None
    if origin in (Union, types.UnionType):
        return None if any(mismatch(value, part) is None for part in parts) else _wrong(value, shape, key)
    if origin is Literal:
        return None if value in parts and isinstance(value, type(parts[0])) else _wrong(value, shape, key)
    if origin is list and isinstance(value, list):
        return _first((item, parts[0], _join(key, i)) for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        if any(not isinstance(name, str) for name in value):
            return _wrong(value, shape, key)
        return _first((item, parts[1], _join(key, name)) for name, item in value.items())
    if is_typeddict(shape) and isinstance(value, dict):
        return _mismatch_of_keys(value, shape, key)
    plain = (int, float) if shape is float else type(None) if shape is None else shape
    if origin is None and not is_typeddict(shape) and isinstance(value, plain):
        is_truth, is_huge = isinstance(value, bool), isinstance(value, int) and abs(value) >= _HUGE
        return _wrong(value, shape, key) if (is_truth and shape is not bool) or is_huge else None
    return _wrong(value, shape, key)


def _mismatch_of_keys(value: dict[Any, Any], shape: Any, key: str) -> str | None:
    # Not by __required_keys__, which is wrong with postponed annotations.
    for name, part in get_type_hints(shape, include_extras=True).items():
        optional = get_origin(part) is NotRequired
        if name not in value:
            if optional:
                continue
            return f"the key {_join(key, name)} is missing"
        found = mismatch(value[name], get_args(part)[0] if optional else part, _join(key, name))
        if found is not None:
            return found
    return None


def _first(items: Any) -> str | None:
    return next((found for item in items if (found := mismatch(*item)) is not None), None)


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _wrong(value: object, shape: Any, key: str) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    where = f"{key} (={shown})" if key else "the content"
    return f"{where} must be {_describe(shape)}"


def _describe(shape: Any) -> str:
    origin, parts = get_origin(shape), get_args(shape)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(part) for part in parts)
    if origin is list:
        return "a list"
    if origin is dict or is_typeddict(shape):
        return "an object with keys"
    return _WORDS.get(shape, getattr(shape, "__name__", str(shape)))
