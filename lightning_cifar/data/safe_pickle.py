"""Reads pickled arrays of numbers without executing anything.

`pickle` calls any callable that a file names. This reader replaces each global that an array of numbers needs by a
stand-in that only records values, and refuses every other global. The arrays are made afterwards, from bytes of checked
length.
"""

import io
import math
import pickle
import pickletools
from typing import TYPE_CHECKING, NoReturn

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

# Numbers only: `O` contains pickled objects, `V` and `M` structures that are not needed.
_NUMBER_CODES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})


def read_pickle(content: bytes, *, name: str) -> object:
    """Unpickle plain values and arrays of numbers, as written by Python 2 and 3 (protocols 0 to 4).

    Args:
        content: Bytes of the whole pickle.
        name: Name of the file for error messages.

    Returns:
        Numbers, bytes, strings, lists, tuples and dicts; strings of Python 2 become bytes. An array may be the value
        itself or a value of the outermost dict, and is a read-only view of the bytes.

    Raises:
        ValueError: The pickle is damaged, or contains other objects than arrays of numbers. Nothing was executed.
    """
    unpickler = _Unpickler(content)
    try:
        _scan(content)
        return unpickler.finish(unpickler.load())
    except _RefusedError as error:
        reason = f"{name} contains {error}: it is not an official CIFAR-10 batch; delete it and download again"
    except Exception as error:  # pickle raises many types on damaged bytes
        # Only the type: the text of a KeyError, for example, contains a value from the file, of any size.
        reason = f"{name} is damaged or truncated ({type(error).__name__}): delete it and download again"
    raise ValueError(reason)


class _RefusedError(Exception):
    """The pickle contains something that plain data do not need."""


def _scan(content: bytes) -> None:
    """Refuse opcodes that act before any stand-in is called.

    A memo index allocates a table of that length at once (a 6-byte opcode can claim 64 GB); a declared length beyond
    the end of the file fails here without allocation; extension codes bypass `find_class`.
    """
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name.endswith("PUT") and isinstance(argument, int) and argument > len(content):
            raise _RefusedError(f"a memo index of {argument}")
        if opcode.name.startswith("EXT"):
            raise _RefusedError(f"the extension code {argument}")


class _StandIn:
    """Base of the stand-ins. It defines `__setstate__`, because the BUILD opcode sets attributes otherwise."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise _RefusedError("a state for an object without one")


class _Call(_StandIn):
    """One allowed global."""

    __slots__ = ("_function",)

    def __init__(self, function: "Callable[..., object]") -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)


class _DType(_StandIn):
    """Records the element type of an array."""

    __slots__ = ("code", "order")

    def __init__(self, code: object) -> None:
        self.code = _text(code)
        self.order = "|"
        if self.code not in _NUMBER_CODES:
            raise _RefusedError(f"an array of type {self.code[:20]!r}")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise _RefusedError("an array of a structured type")
        self.order = _text(state[1])
        if self.order not in {"|", "<", ">", "="}:
            raise _RefusedError("an array of unknown byte order")


class _Array(_StandIn):
    """Records shape, element type and bytes of an array, and checks that they match."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: npt.NDArray[np.generic] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("an array without shape, type and bytes")
        _, shape, dtype, fortran_order, raw = state
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes) or not isinstance(shape, tuple):
            raise _RefusedError("an array without shape, type and bytes")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise _RefusedError("an array of impossible shape")
        element = np.dtype(dtype.order + dtype.code)
        if math.prod(shape) * element.itemsize != len(raw):
            raise _RefusedError("an array whose shape does not match its bytes")
        self.value = np.frombuffer(raw, dtype=element).reshape(shape, order="F" if fortran_order else "C")


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._arrays = 0
        # A normal file encodes each character once; a malicious one can encode a long string many times.
        self._encodable = len(content)
        self._ndarray = _Call(_not_callable)
        reconstruct = _Call(self._reconstruct)
        self._allowed = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,  # NumPy 1, and the official files
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,  # NumPy 2
            ("numpy", "ndarray"): self._ndarray,
            ("numpy", "dtype"): _Call(lambda code, *_: _DType(code)),
            ("_codecs", "encode"): _Call(self._encode),  # bytes that Python 3 writes for Python 2
        }

    def find_class(self, module_name: str, global_name: str) -> object:
        allowed = self._allowed.get((module_name, global_name))
        if allowed is None:
            raise _RefusedError(f"the global {f'{module_name}.{global_name}'[:80]!r}")
        return allowed

    def finish(self, value: object) -> object:
        """Replace the stand-ins in a value by arrays."""
        if isinstance(value, dict):
            made = [key for key, item in value.items() if isinstance(item, _Array)]
            value |= {key: value[key].value for key in made}
            found, missing = len(made), any(value[key] is None for key in made)
        elif isinstance(value, _Array):
            value = value.value
            found, missing = 1, value is None
        else:
            found, missing = 0, isinstance(value, _StandIn)
        if missing or found != self._arrays:
            raise _RefusedError("an unfinished or nested array")
        return value

    def _reconstruct(self, subtype: object, shape: object, kind: object) -> _Array:
        if subtype is not self._ndarray:
            raise _RefusedError("an array of another class than numpy.ndarray")
        self._arrays += 1
        return _Array()

    def _encode(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or _text(encoding) not in {"latin1", "latin-1"}:
            raise _RefusedError("a call of '_codecs.encode' other than to latin1")
        self._encodable -= len(text)
        if self._encodable < 0:
            raise _RefusedError("more encoded text than its size")
        return text.encode("latin1")


def _not_callable(*arguments: object) -> NoReturn:
    raise _RefusedError("a call of 'numpy.ndarray'")


def _text(value: object) -> str:
    """Return a short name, which Python 2 writes as bytes or as text."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, str):
        return value
    raise _RefusedError("a value that is not text as a name")
