"""A device that is not there: its tensors have shapes but no values, refuse other devices, and report each wait."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import lightning_cifar

PACKAGE = str(Path(lightning_cifar.__file__).parent)
aten = torch.ops.aten
READS = {
    aten._local_scalar_dense,
    aten.equal,
    aten.nonzero,
    aten.bincount,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
}


class FakeDevice(TorchDispatchMode):
    """Tensors on ``device`` are fake, those of the CPU are real.

    ``reads`` names each copy of a value to the CPU, ``copies`` each copy from the CPU that waits for the queue of
    kernels, and ``doubles`` each result in float64, which mps does not have. A value that is read is 0.

    A backward pass on fake tensors of ``cuda`` needs a driver; ``meta`` needs none and is treated equally here.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.device = torch.device(kind, 0) if kind == "cuda" else torch.device(kind)
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.fake.allow_meta = True
        self.clear()

    def clear(self) -> None:
        self.reads: list[str] = []
        self.copies: list[str] = []
        self.doubles: list[str] = []

    @property
    def waits(self) -> list[str]:
        return [*self.reads, *self.copies]

    def build(self, make: Callable[[], Any], *, large: bool = False) -> Any:
        """Return a module whose parameters, buffers and metrics are on this device."""
        with _disable_current_modes(), torch.device("meta" if large else "cpu"):  # no time for many initial values
            module = make()
        for each in module.modules():
            for name, value in each._parameters.items():
                if value is not None:
                    each._parameters[name] = nn.Parameter(self._like(value), value.requires_grad)
            for name, value in each._buffers.items():
                each._buffers[name] = None if value is None else self._like(value)
            for name in getattr(each, "_defaults", ()):  # of a metric
                each._defaults[name] = self._like(each._defaults[name])
                setattr(each, name, each._defaults[name].clone())
            if hasattr(each, "_device"):
                each._device = self.device
        return module

    def _like(self, value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=self.device)

    def __enter__(self) -> FakeDevice:
        self.fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if not any(self._is_here(leaf) for leaf in leaves):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        packet = func.overloadpacket
        masks = [leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, Tensor) and leaf.dtype == torch.bool]
        is_fill = packet in (aten.index_put, aten.index_put_, aten._index_put_impl_) and args[2].numel() == 1
        if packet in READS or (packet in (aten.index, aten.index_put, aten.index_put_) and masks and not is_fill):
            self.reads.append(self._where(packet))
            if packet is aten._local_scalar_dense:
                return False if args[0].dtype == torch.bool else 0.0 if args[0].is_floating_point() else 0
            if packet is aten.equal:
                return True
            if packet is aten.nonzero:  # one place, the first
                return torch.zeros(1, args[0].ndim, dtype=torch.int64, device=self.device)
            if packet is aten.index:  # the same for masks
                first = torch.zeros(1, dtype=torch.int64, device=self.device)
                places = [
                    [first] * mask.ndim if mask is not None and mask.dtype == torch.bool else [mask] for mask in args[1]
                ]
                return func(args[0], list(chain.from_iterable(places)))
            if packet is aten.bincount:
                return torch.zeros(kwargs["minlength"] if kwargs else args[2], dtype=torch.int64, device=self.device)
        sources = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if packet in (aten._to_copy, aten.copy_):
            target = args[0].device if packet is aten.copy_ else torch.device(kwargs.get("device") or args[0].device)
            source = sources[-1]
            if target.type == "cpu":
                self.reads.append(self._where(packet))
                with unset_fake_temporarily():
                    zeros = torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
                    return args[0].zero_() if packet is aten.copy_ else zeros
            if source.device.type == "cpu" and not (kwargs.get("non_blocking") or (args[2:] and args[2])):
                self.copies.append(self._where(packet))
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and self._is_here(leaf) and leaf.dtype in (torch.float64, torch.complex128):
                self.doubles.append(self._where(packet))
        return result

    def _is_here(self, leaf: object) -> bool:
        device = leaf.device if isinstance(leaf, Tensor) else leaf
        return isinstance(device, torch.device) and device.type == self.device.type

    def _where(self, packet: Any) -> str:
        frames = traceback.extract_stack()
        ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)] or frames[:-2]
        return f"{packet} in {Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}"


@pytest.fixture(params=["cuda", "meta"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    with FakeDevice(request.param) as device:
        yield device
