"""No argument of a convolution crashes the process, and the fast kernels agree with the plain ones.

test_convolution_build.py runs this file again with bounds checks, therefore it does not import torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightning_cifar.ext import convolution
from lightning_cifar.ext.convolution import BACKENDS, conv2d, conv2d_backward, set_num_threads

Array = NDArray[Any]
pytestmark = pytest.mark.skipif("cython" not in BACKENDS, reason="the compiled backends are not built here")
LAYOUTS = ["contiguous", "channels_last", "strided", "reversed", "odd_address", "broadcast"]


def available(name: str) -> bool:
    before = convolution.instruction_set()
    try:
        convolution.conv_cython.use_instruction_set(name)
    except ValueError:
        return False
    convolution.conv_cython.use_instruction_set(before)
    return True


SETS = [name for name in ("avx512", "avx2", "portable") if "cython" in BACKENDS and available(name)]


def arrange(array: Array, layout: str) -> Array:
    """Return the array in another memory layout; "broadcast" changes the values too."""
    n, c, h, w = array.shape
    if layout == "channels_last":
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "reversed":
        return np.ascontiguousarray(array[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1]
    if layout == "broadcast":
        return np.broadcast_to(array[:, :1, :, :1], array.shape)
    if layout == "strided":
        view = np.zeros((n, c + 1, 2 * h, 3 * w), array.dtype)[:, 1:, ::2, 2::3]
    elif layout == "odd_address":
        view = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    else:
        return array
    view[:] = array
    return view


sizes = st.integers(1, 24)
little = st.integers(1, 4)


@st.composite
def arguments(draw: st.DrawFn) -> tuple[Array, Array, Array | None, dict[str, Any]]:
    """Draw arguments of conv2d, mostly valid and sometimes with one error."""
    groups, n, c, k = draw(st.integers(1, 3)), draw(st.integers(0, 3)), draw(sizes), draw(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    image = draw(st.sampled_from([(draw(sizes), draw(sizes)), (1, 40 * draw(sizes)), (40 * draw(sizes), 2)]))
    x = rng.standard_normal((n, c * groups, *image)).astype(dtype)
    w = rng.standard_normal((k * groups, c, draw(little), draw(little))).astype(dtype)
    b = rng.standard_normal(len(w)).astype(dtype) if draw(st.booleans()) else None
    given_settings: dict[str, Any] = {
        "stride": (draw(little), draw(little)),
        "padding": (draw(little) - 1, draw(little) - 1),
        "dilation": (draw(little), draw(little)),
        "groups": groups,
    }
    fault = draw(st.sampled_from(["none"] * 8 + ["dtype", "channels", "groups", "stride", "dilation", "axes", "int"]))
    if fault == "dtype":
        w = w.astype(draw(st.sampled_from(["float16", "float32", "float64", "int32", "complex64"])))
    elif fault == "channels":
        x = x[:, : draw(st.integers(0, 3))]
    elif fault in ("groups", "stride", "dilation"):
        given_settings[fault] = draw(st.integers(-2, 10**20))
    elif fault == "axes":
        x = x.reshape(-1, *x.shape[2:])
    elif fault == "int":
        x = x.astype(int)
    return x, w, b, given_settings


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    arguments(),
    st.sampled_from(LAYOUTS),
    st.sampled_from(LAYOUTS),
    st.integers(1, 3),
    st.sampled_from(SETS or ["none"]),
)
def test_no_argument_crashes_and_results_agree(
    given: tuple[Array, Array, Array | None, dict[str, Any]], layout: str, w_layout: str, threads: int, name: str
) -> None:
    x, w, b, chosen = given
    try:
        conv2d(x, w, b, **chosen, backend="im2col")
    except (ValueError, TypeError) as error:
        with pytest.raises(type(error), match=r"\w"):
            conv2d(x, w, b, **chosen, backend="cython")
        return
    x, w = arrange(x, layout), arrange(w, w_layout)
    y = conv2d(x, w, b, **chosen, backend="im2col")
    grad_y = arrange(np.cos(y), layout)
    before = convolution.instruction_set(), convolution.get_num_threads()
    try:
        convolution.conv_cython.use_instruction_set(name)
        set_num_threads(threads)
        results = [conv2d(x, w, b, **chosen), *conv2d_backward(grad_y, x, w, **chosen)]
    finally:
        convolution.conv_cython.use_instruction_set(before[0])
        set_num_threads(before[1])
    expected = [y, *conv2d_backward(grad_y, x, w, **chosen, backend="im2col")]
    tolerance = 1e-11 if x.dtype == np.float64 else 1e-4
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 100)
