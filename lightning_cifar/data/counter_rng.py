"""Random numbers that are a pure function of (seed, epoch, stream, sample index).

The numbers of a usual generator depend on all earlier draws, and so on batch size, workers, ranks and resumes. These
numbers depend only on their address and are equal on every device. The function is the output step of SplitMix64
(Steele, Lea & Flood, OOPSLA 2014) over a counter. 64-bit arithmetic wraps around: by masking in Python, by itself in
torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_MASK = (1 << 64) - 1

# Special streams; those of augmentations count from 0.
ORDER = -1
PER_SAMPLE = -2
ALTERNATING = -3


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def key(*numbers: int) -> int:
    """Return a 64-bit hash of integers, as a signed number."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK)) + _GOLDEN & _MASK
        for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
            state = (state ^ (state >> shift)) * multiplier & _MASK
    return _signed(state)


def bits(seed: int, epoch: int, streams: range, indices: Tensor) -> Tensor:
    """Return 64 random bits for each stream and sample: int64 (len(streams), N)."""
    state = (indices * _signed(_GOLDEN)).repeat(len(streams), 1)
    for row, stream in zip(state, streams, strict=True):  # a tensor of keys would be copied, which stops a GPU's queue
        row += key(seed, epoch, stream)
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        state ^= (state >> shift) & ((1 << (64 - shift)) - 1)  # a signed shift copies the sign: mask it
        if multiplier != 1:
            state *= _signed(multiplier)
    return state


def uniform(seed: int, epoch: int, streams: range, indices: Tensor) -> Tensor:
    """Return numbers in [0, 1) for each stream and sample: float32 (len(streams), N), multiples of 2**-24."""
    return ((bits(seed, epoch, streams, indices) >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def permutation(seed: int, epoch: int, size: int, device: torch.device | None = None) -> Tensor:
    """Return the order of ``size`` samples in an epoch: int64 (size,)."""
    return bits(seed, epoch, range(ORDER, ORDER + 1), torch.arange(size, device=device))[0].argsort(stable=True)
