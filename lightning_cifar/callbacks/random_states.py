"""Save and restore the global random states of torch, Python and NumPy."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_state() -> dict[str, Any]:
    """Return the states of the global generators as plain values and tensors, which a checkpoint can contain."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - the global generator
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss_next],
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the result of :func:`random_state`."""
    torch.set_rng_state(_on_cpu(state["torch"]))
    if state["cuda"]:
        torch.cuda.set_rng_state_all([_on_cpu(each) for each in state["cuda"]])
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002


@contextmanager
def random_state_restored() -> Iterator[None]:
    """Restore all random states afterwards, also after an exception, unlike Lightning's ``isolate_rng``."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def _on_cpu(state: Tensor) -> Tensor:
    return state.cpu().to(torch.uint8)
