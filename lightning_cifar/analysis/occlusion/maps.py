"""Occlusion maps: importance of each part of an image for the output of a network.

A window slides over the image, the covered pixels are replaced, and the drop of the target's output is computed for
each position (Zeiler & Fergus, 1311.2901). A positive drop means that the covered part supports the target.

Shapes: ``N`` images, ``C`` channels, ``H W`` image in pixels, ``K`` outputs, ``P Q`` window positions down and across.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, fx, nn

from lightning_cifar.analysis.modes import evaluation
from lightning_cifar.analysis.occlusion.partial_forward import PartialForward, whole_forward
from lightning_cifar.analysis.occlusion.tracing import trace
from lightning_cifar.analysis.occlusion.windows import Fill, Windows, make_fills, place_windows, thin

Output = Literal["probability", "logit"]

HELD_OUT = 8
"""Number of windows of each image from which the fast mode estimates its error."""


class OcclusionMap(NamedTuple):
    """Drops of the target's output, on the device of the images."""

    values: Tensor
    """(N, P, Q): output for the original image minus output with the window at this position."""
    pixels: Tensor
    """(N, H, W): mean of the values of the windows that cover a pixel; NaN if no window covers it."""
    targets: Tensor
    """(N,) int64: target classes."""
    clean: Tensor
    """(N,): output of the target for the original image."""
    error: Tensor
    """(N,): root mean square error of ``values``, estimated from 8 windows of each image; 0 with ``mode="exact"``."""
    outputs: Tensor | None = None
    """(N, P, Q, K): outputs of all classes with the window at this position; None without ``all_classes``."""


def occlusion_map(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    window: int | tuple[int, int] = 8,
    stride: int | tuple[int, int] = 1,
    fill: Fill = "mean",
    output: Output = "probability",
    mode: Literal["exact", "fast"] = "exact",
    chunk: int | None = None,
    all_classes: bool = False,
    advance: Callable[[int], object] = lambda count: None,
) -> OcclusionMap:
    """Slide a window over each image and compute the drop of the target's output.

    The first window lies in the top left corner. If the stride does not divide the remaining pixels, the border cuts
    off the last windows, so that every pixel is covered, as in ``captum.attr.Occlusion``. Several images in one call
    are faster than single images.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K), each image independently. It is evaluated in evaluation mode
            and does not change.
        images: (N, C, H, W) float, normalised as for the model.
        targets: (N,) classes; None is the class that the model predicts for the original image.
        window: Height and width in pixels; one number for a square.
        stride: Steps down and across in pixels. If it is above the window, pixels stay uncovered: a warning states how
            many, and they are NaN in ``pixels``.
        fill: Replacement of the covered pixels, in the space of ``images``: a number; ``"mean"``, the mean of each
            image and channel; ``"blur"``, the image smoothed by a Gaussian of half the window's larger side; or a
            tensor (C,) or one that broadcasts to the images.
        output: Whether the drop is that of the target's softmax probability or of its logit.
        mode: ``"exact"`` computes each position. ``"fast"`` computes positions a quarter of a window apart, in
            bfloat16 if the processor supports it, interpolates the target's log-odds (or logit) linearly between them,
            and estimates the error at some more positions.
        chunk: Largest number of covered images in one forward pass; None depends on the device.
        all_classes: Whether the result also has the ``outputs`` of all classes, with ``mode="exact"``.
        advance: Called with the number of covered images after each forward pass, for a progress bar.

    Raises:
        ValueError: An argument is out of range or does not fit the images, or the model does not return logits.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
        >>> found = occlusion_map(model, torch.rand(1, 3, 8, 8), window=4)
        >>> found.values.shape, found.pixels.shape
        (torch.Size([1, 5, 5]), torch.Size([1, 8, 8]))
    """
    if images.ndim != 4 or not images.numel() or not images.is_floating_point():
        raise ValueError(f"`images` must be floats (N, C, H, W), not {images.dtype} {tuple(images.shape)}.")
    if targets is not None and targets.shape != images.shape[:1]:
        raise ValueError(f"`targets` {tuple(targets.shape)} must be one class for each of the {len(images)} images.")
    if output not in ("probability", "logit"):
        raise ValueError(f"`output` (={output!r}) must be 'probability' or 'logit'.")
    if mode not in ("exact", "fast"):
        raise ValueError(f"`mode` (={mode!r}) must be 'exact' or 'fast'.")
    if all_classes and mode == "fast":
        raise ValueError("`all_classes` needs mode='exact'.")
    if chunk is not None and chunk < 1:
        raise ValueError(f"`chunk` (={chunk}) must be at least 1.")
    height, width = images.shape[2:]
    windows = place_windows((height, width), window, stride)
    x = images.detach().to(*_device_and_dtype(model, images))
    fills = make_fills(x, fill, window)
    with evaluation(model), torch.autocast(x.device.type, enabled=False):
        task = _Task(model, x, fills, targets, output, chunk, advance)
        every: Tensor | None = None
        if mode == "exact":
            values, every = task.exact(windows, all_classes)
            error = torch.zeros_like(task.clean)
        else:
            values, error = task.fast(windows)
    result = values, windows.average(values, (height, width)), task.targets, task.clean, error
    found = OcclusionMap(*(tensor.to(images.device) for tensor in result))
    return found if every is None else found._replace(outputs=every.to(images.device))


def _device_and_dtype(model: nn.Module, images: Tensor) -> tuple[torch.device, torch.dtype]:
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return images.device, images.dtype


class _Network(NamedTuple):
    """One implementation of the model."""

    traced: fx.GraphModule | None
    """The traced network; None for the model itself."""
    dtype: torch.dtype
    tolerance: float
    """Largest accepted difference from the model: of a probability, or relative to the largest logit."""


class _Task:
    """A model, the images and the kind of output."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        fills: Tensor,
        targets: Tensor | None,
        output: Output,
        chunk: int | None,
        advance: Callable[[int], object],
    ) -> None:
        self.model, self.x, self.fills, self.output, self.advance = model, x, fills, output, advance
        pixels = x.shape[2] * x.shape[3]
        self.is_cpu = x.device.type == "cpu"
        # On a CPU a batch should fit into the caches.
        usual = min(max(2**15 // pixels, 4), 32) if self.is_cpu else min(max(2**19 // pixels, 16), 1024)
        self.chunk, self.tail_chunk = chunk or usual, chunk or (4 * usual)
        self.batch = min(max(2**18 // pixels, 1), 16)
        logits = torch.cat([self._ask(part) for part in torch.split(x, self.chunk)])
        num_outputs = logits.shape[1]
        if output == "probability" and num_outputs == 1:
            raise ValueError("The model has a single output, whose probability is always 1: pass output='logit'.")
        self.targets = logits.argmax(1) if targets is None else targets.to(logits.device, torch.int64)
        if int(self.targets.min()) < 0 or int(self.targets.max()) >= num_outputs:
            raise ValueError(f"`targets` {self.targets.tolist()} must be from 0 to {num_outputs - 1}.")
        self.clean = self.read(logits, self.targets)
        self.scale = 1.0 if output == "probability" else 1.0 + float(logits.abs().max())

    def exact(self, windows: Windows, all_classes: bool) -> tuple[Tensor, Tensor | None]:
        """Compute the drops (N, P, Q), and the outputs (N, P, Q, K) of all classes if they are wanted."""
        for network in self._networks(half=False):
            found = self._outputs(network, windows, self._read_all if all_classes else self.read)
            outputs = found[torch.arange(len(found)), ..., self.targets] if all_classes else found
            if network.traced is None or self._confirms(network, windows, outputs):
                break
        return self.clean[:, None, None] - outputs, found if all_classes else None

    def fast(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Compute approximate drops (N, P, Q) and their error (N,)."""
        (rows, mix_rows), (columns, mix_columns) = (thin(spans) for spans in windows)
        thinned = Windows(tuple(windows.rows[i] for i in rows), tuple(windows.columns[i] for i in columns))
        for network in self._networks(half=True):
            scores = self._outputs(network, thinned, self.score)
            if network.traced is None or self._confirms(network, thinned, self._unscored(scores)):
                break
        scores = mix_rows.to(scores) @ scores @ mix_columns.to(scores).T
        outputs = self._unscored(scores)
        index = self._held_out(windows, rows, columns)
        exact = self._at(windows, index)
        found = outputs.flatten(1).gather(1, index)
        error = (found - exact).square().mean(1).sqrt()
        outputs = outputs.flatten(1).scatter(1, index, exact).view_as(outputs)
        return self.clean[:, None, None] - outputs, error

    def read(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the outputs whose drop is computed: (N, K) -> (N,)."""
        return self._read_all(logits, targets).gather(1, targets[:, None])[:, 0]

    def _read_all(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.softmax(1) if self.output == "probability" else logits

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return logits or log-odds for interpolation, (N, K) -> (N,); log-odds are smoother than probabilities."""
        logit = logits.gather(1, targets[:, None])[:, 0]
        if self.output == "logit":
            return logit
        return logit - logits.scatter(1, targets[:, None], -torch.inf).logsumexp(1)

    def _unscored(self, scores: Tensor) -> Tensor:
        return scores.sigmoid() if self.output == "probability" else scores

    def _networks(self, half: bool) -> list[_Network]:
        """The implementations, fastest first; the last one always works."""
        networks = []
        traces = self.is_cpu and self.x.dtype in (torch.float32, torch.float64)
        traced = trace(self.model, self.x.shape) if traces else None
        if traced is not None:
            if half and _has_bfloat16():
                networks.append(_Network(copy.deepcopy(traced).to(torch.bfloat16), torch.bfloat16, 0.05))
            networks.append(_Network(traced, self.x.dtype, 1e-4))
        return [*networks, _Network(None, self.x.dtype, 0.0)]

    def _outputs(self, network: _Network, windows: Windows, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Apply ``read`` to the logits of all windows: (N, P, Q) or (N, P, Q, K)."""
        x, fills = self.x.to(network.dtype), self.fills.to(network.dtype)
        size = len(windows.rows) * len(windows.columns)
        outputs: Tensor | None = None
        if network.traced is None:
            forward = whole_forward(self._ask, windows, self.tail_chunk)
        else:
            num = min(len(x), self.batch)
            forward = PartialForward(network.traced, x[:1], windows, num, self.chunk, self.tail_chunk)
        for first in range(0, len(x), self.batch):
            part = slice(first, first + self.batch)
            for index, logits in forward(x[part], fills[part]):
                index = index.to(x.device) + first * size
                found = read(logits.to(self.clean.dtype), self.targets[index // size])
                if outputs is None:
                    outputs = found.new_empty(len(x) * size, *found.shape[1:])
                outputs[index] = found
                self.advance(len(index))
        assert outputs is not None
        return outputs.view(len(x), len(windows.rows), len(windows.columns), *outputs.shape[1:])

    def _confirms(self, network: _Network, windows: Windows, outputs: Tensor) -> bool:
        """Whether the model returns the same outputs for the largest rise and the largest drop of some images."""
        flat = outputs[: self.batch].flatten(1)
        index = torch.stack([flat.argmax(1), flat.argmin(1)], 1)
        difference = self._at(windows, index) - flat.gather(1, index)
        return bool((difference.abs() <= network.tolerance * self.scale).all())

    def _at(self, windows: Windows, index: Tensor) -> Tensor:
        """Return outputs (M, k) of the model for windows of the first M images, given by flat indices (M, k)."""
        columns = len(windows.columns)
        covered_images = []
        for image, fill, chosen in zip(self.x, self.fills, index.tolist(), strict=False):
            for i in chosen:
                copied = image.clone()
                area = (..., slice(*windows.rows[i // columns]), slice(*windows.columns[i % columns]))
                copied[area] = fill[area]
                covered_images.append(copied)
        logits = torch.cat([self._ask(part) for part in torch.split(torch.stack(covered_images), self.tail_chunk)])
        return self.read(logits, self.targets[: len(index)].repeat_interleave(index.shape[1])).view_as(index)

    def _held_out(self, windows: Windows, rows: list[int], columns: list[int]) -> Tensor:
        """Return flat indices (N, k) of interpolated positions, or of any positions if none was interpolated."""
        computed = torch.zeros(len(windows.rows), len(windows.columns), dtype=torch.bool)
        computed[torch.tensor(rows)[:, None], torch.tensor(columns)] = True
        free = (~computed).flatten().nonzero()[:, 0] if not computed.all() else torch.arange(computed.numel())
        # The same for each image, so that results do not depend on other images.
        chosen = free[torch.randperm(len(free), generator=torch.Generator().manual_seed(0))[:HELD_OUT]]
        return chosen.repeat(len(self.x), 1).to(self.x.device)

    def _ask(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"The model must map {tuple(x.shape)} to logits ({len(x)}, K), but it returned {found}.")
        return logits


def _has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 natively."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
