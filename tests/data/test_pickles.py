import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_cifar.data.safe_pickle import read_pickle

# What Python 2 with NumPy 1 wrote for {"data": np.array([[1, 2, 3], [4, 5, 6]], np.uint8), "labels": [3, 9]}.
PYTHON2 = (
    b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
    b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02K\x03\x86q\x08cnumpy\ndtype\nq\tU\x02u1q\nK\x00K\x01\x87q\x0bRq\x0c"
    b"(K\x03U\x01|q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x06\x01\x02\x03\x04\x05\x06q\x0ftq\x10b"
    b"U\x06labelsq\x11]q\x12(K\x03K\teu."
)


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def array_pickle(*, code: bytes = b"u1", shape: bytes = b"K\x02K\x03\x86", raw: bytes = bytes(6)) -> bytes:
    """The array of PYTHON2 alone, with parts exchanged."""
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nU"
        + bytes([len(code)])
        + code
        + b"K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
        + bytes([len(raw)])
        + raw
        + b"tb."
    )


def test_python2_pickle_gives_bytes_keys_and_the_array() -> None:
    value = read_pickle(PYTHON2, name="batch")
    assert isinstance(value, dict)
    assert list(value) == [b"data", b"labels"]
    assert type(value[b"data"]) is np.ndarray
    np.testing.assert_array_equal(value[b"data"], np.array([[1, 2, 3], [4, 5, 6]], np.uint8), strict=True)
    assert value[b"labels"] == [3, 9]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i4", "float32", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_the_current_numpy(protocol: int, dtype: str, order: str) -> None:
    array = np.array(np.arange(6).reshape(2, 3), dtype=dtype, order="F" if order == "F" else "C")
    value = read_pickle(pickle.dumps(array, protocol), name="batch")
    assert isinstance(value, np.ndarray)
    np.testing.assert_array_equal(value, array, strict=True)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_plain_values(protocol: int) -> None:
    value = {"a": [1, 2.5, None, True, 2**70], "b": ("é", b"\x00\xff", {"c": -1})}
    assert read_pickle(pickle.dumps(value, protocol), name="batch") == value


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda path: Calls(os.system, f"touch {path}"), "system"),
        (lambda path: Calls(eval, f"open({str(path)!r}, 'w')"), "eval"),
        (lambda path: Calls(getattr, "text", "join"), "getattr"),
        (lambda path: Calls(io.open, str(path), "w"), "open"),
        (lambda path: Calls(np.testing.assert_equal, 1, 1), "assert_equal"),
        (lambda path: Calls(np.fromfile, str(path)), "fromfile"),
        (lambda path: np.float32(1), "scalar"),
    ],
)
def test_other_globals_are_named_and_not_executed(
    call: Callable[[Path], object], named: str, protocol: int, tmp_path: Path
) -> None:
    sentinel = tmp_path / "executed"
    content = pickle.dumps({"data": call(sentinel)}, protocol)
    with pytest.raises(
        ValueError, match=rf"batch contains the global '.*{named}.*delete it and download again"
    ) as info:
        read_pickle(content, name="batch")
    assert "\n" not in str(info.value)
    assert not sentinel.exists()


def test_the_global_of_inst_and_obj_opcodes_is_refused(tmp_path: Path) -> None:
    sentinel = tmp_path / "executed"
    command = f"touch {sentinel}".encode()
    for content in (b"(S'" + command + b"'\nios\nsystem\n.", b"(cos\nsystem\nS'" + command + b"'\no."):
        with pytest.raises(ValueError, match=r"the global 'os\.system'"):
            read_pickle(content, name="batch")
    assert not sentinel.exists()


def test_a_name_with_control_characters_stays_on_one_line() -> None:
    with pytest.raises(ValueError, match="the global") as info:
        read_pickle(b"\x80\x04\x8c\x05a\n\x1b[m\x8c\x01b\x93.", name="batch")
    assert str(info.value).isprintable()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(np.array([{}, []], dtype=object), 2), "an array of type 'O8'"),
        (pickle.dumps(np.zeros(2, dtype=[("a", "i4")]), 2), "an array of type 'V4'"),
        (pickle.dumps(np.zeros(2, dtype="M8[s]"), 2), "an array of type 'M8'"),
        (pickle.dumps(np.ma.zeros(2), 2), "the global 'numpy.ma"),
        (pickle.dumps(np.zeros(2, np.uint8).view(np.recarray), 2), "the global|an array of"),
        (array_pickle(code=b"O"), "an array of type 'O'"),
        (array_pickle(shape=b"K\x02K\x04\x86"), "shape does not match its bytes"),
        (array_pickle(shape=b"J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86"), "impossible shape"),
        (array_pickle(shape=b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"), "shape does not match its bytes"),
        (array_pickle(shape=b"\x88\x88\x86", raw=b"x"), "impossible shape"),
        (array_pickle(shape=b"]"), "without shape"),
        (pickle.dumps([[np.zeros(2, np.uint8)]], 2), "nested array"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R.", "unfinished"),
        (b"\x80\x02cnumpy\nndarray\nK\x05\x85R.", "a call of 'numpy.ndarray'"),
        (b"\x80\x02cnumpy\nndarray\n.", "unfinished"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.", "other than to latin1"),
        (b"\x80\x02c_codecs\nencode\nK\x05X\x06\x00\x00\x00latin1\x86R.", "other than to latin1"),
        # Attributes of what the file may name, set by BUILD.
        (b"\x80\x02c_codecs\nencode\n}U\x08__call__K\x01sb.", "a state for an object without one"),
        (b"\x80\x02c_codecs\nencode\nN}U\x09_functionK\x01s\x86b.", "a state for an object without one"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "memo index"),
        (b"\x80\x02]r\xff\xff\xff\xff.", "memo index"),
        (b"\x80\x02\x82\x01.", "extension code"),
    ],
)
def test_misuse_of_allowed_globals(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"batch contains .*{reason}.*not an official CIFAR-10 batch"):
        read_pickle(content, name="batch")


def test_repeated_encoding_cannot_multiply_a_string() -> None:
    text = b"X" + struct.pack("<I", 4000) + b"a" * 4000 + b"q\x01"
    call = b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R"
    content = b"\x80\x02c_codecs\nencode\nq\x00" + text + call * 50 + b"."
    with pytest.raises(ValueError, match="more encoded text than its size"):
        read_pickle(content, name="batch")


@pytest.mark.parametrize("opcode", [b"\x8e", b"\x8d", b"\x96"])
def test_a_declared_length_beyond_the_file_is_not_allocated(opcode: bytes) -> None:
    with pytest.raises(ValueError, match="batch is damaged or truncated"):
        read_pickle(b"\x80\x05" + opcode + struct.pack("<Q", 1 << 40) + b"abc.", name="batch")


def test_every_truncation_is_refused_in_one_line() -> None:
    for length in range(len(PYTHON2)):
        with pytest.raises(ValueError, match=r"batch is damaged or truncated .*delete it and download again") as info:
            read_pickle(PYTHON2[:length], name="batch")
        assert "\n" not in str(info.value)


@pytest.mark.filterwarnings("ignore:.*invalid escape sequence.*:DeprecationWarning")  # of a flipped STRING opcode
def test_a_flipped_bit_gives_a_value_or_one_line() -> None:
    refusals = []
    for position in range(8 * len(PYTHON2)):
        content = bytearray(PYTHON2)
        content[position // 8] ^= 1 << position % 8
        try:
            read_pickle(bytes(content), name="batch")
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > len(PYTHON2)
    assert all(refusal.startswith("batch ") and refusal.isprintable() for refusal in refusals)
