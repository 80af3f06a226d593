"""Largest curvature of the training loss during training, and the optimizer's stability limit."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cifar.analysis.layers import uncompiled
from lightning_cifar.analysis.modes import undisturbed
from lightning_cifar.analysis.sharpness import hessian_product, largest_eigenvalue, stability, trained
from lightning_cifar.artifacts import log_scalars, save_figure, save_table
from lightning_cifar.callbacks.base import WritingCallback, check_minimum
from lightning_cifar.callbacks.probe import first_two, networks_of
from lightning_cifar.callbacks.progress import completed_epochs
from lightning_cifar.files.text import plain_text

KEY = "train/sharpness"
HEADER = ("step", "epoch", "sharpness", "limit", "lr", "residual", "products")


class Measurement(NamedTuple):
    """A row of ``sharpness.csv``, after ``step`` optimizer steps."""

    step: int
    epoch: float
    sharpness: float
    limit: float
    lr: float
    residual: float
    """Relative error bound of the eigenvalue."""
    products: int
    """Products of the Hessian and a vector that were needed."""


class Sharpness(WritingCallback):
    """Measure the sharpness, which is the largest eigenvalue of the Hessian of the training loss on fixed samples.

    It is compared with the limit above which the optimizer is unstable, such as ``2 (1 + momentum) / lr`` for SGD, see
    :func:`~lightning_cifar.analysis.sharpness.stability`. For Adam and RMSprop, it is the eigenvalue of the
    preconditioned Hessian (2207.14484). Near the limit, training runs at the edge of stability (2103.00065). Both are
    shown in ``sharpness.csv``, ``pictures/sharpness.png`` and TensorBoard; the last value of an epoch is the metric
    ``train/sharpness``, which a study can compare.

    The samples are the first ones of the training, with their augmentation. The loss is ``pl_module.loss(outputs,
    targets)``, or else the cross-entropy of labels or the mean squared error, without weight decay, mixup and dropout;
    batch norm uses the statistics of the samples, as in training. The values are computed in the precision of the
    weights, on rank zero.

    The first measurement is after the first step, the last one at the end of the training.

    Args:
        every_n_steps: Period in optimizer steps. A measurement takes about as long as 4 steps of LeNet or 13 of
            DilatedNet with batches of 128.
        num_samples: Number of samples. Few samples overestimate the sharpness of the whole training set.
        tolerance: Largest residual of the eigenvalue, relative to it.
        max_products: Maximum number of products of the Hessian and a vector in a measurement.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> trainer = Trainer(callbacks=[Sharpness(every_n_steps=100)])
    """

    def __init__(
        self, every_n_steps: int = 500, num_samples: int = 64, tolerance: float = 0.01, max_products: int = 48
    ) -> None:
        check_minimum(every_n_steps=every_n_steps, num_samples=num_samples)
        check_minimum(2, max_products=max_products)
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance (={tolerance}) must be above 0 and below 1")
        self.every_n_steps, self.num_samples = every_n_steps, num_samples
        self.tolerance, self.max_products = tolerance, max_products
        self.measurements: list[Measurement] = []
        self._batch: tuple[Tensor, Tensor] | None = None
        self._vector: Tensor | None = None  # from the last measurement, where the next one starts
        self._formula = ""
        self._disabled = False
        self._is_logged = True

    def state_dict(self) -> dict[str, Any]:
        rows = [list(row) for row in self.measurements]
        return {"rows": rows, "batch": self._batch, "vector": self._vector, "is_logged": self._is_logged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.measurements = [Measurement(*row) for row in state_dict["rows"]]
        batch, self._vector, self._is_logged = (state_dict[name] for name in ("batch", "vector", "is_logged"))
        self._batch = None if batch is None else (batch[0], batch[1])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:  # a new training, with a callback that may have been used before
            self.measurements, self._batch, self._vector, self._is_logged = [], None, None, True
        self._disabled = not trainer.is_global_zero
        if len(networks_of(pl_module)) > 1 or len(trainer.optimizers) != 1 or not pl_module.automatic_optimization:
            self._disable("it needs one network with one optimizer and automatic optimization")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._batch is None and not self._disabled:
            inputs, targets = first_two(batch)
            if isinstance(inputs, Tensor) and isinstance(targets, Tensor):
                count = self.num_samples
                self._batch = (inputs[:count].detach().clone(), targets[:count].detach().clone())
            else:
                self._disable("it needs batches (inputs, targets, ...) of tensors")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step, last = trainer.global_step, self.measurements[-1].step if self.measurements else 0
        if last == 0 < step or step // self.every_n_steps > last // self.every_n_steps or _ends(trainer):
            self._measure(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_logged:
            pl_module.log(KEY, self.measurements[-1].sharpness, rank_zero_only=True)
            self._is_logged = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, pl_module)
        self._write(trainer, pl_module)

    def _disable(self, reason: str) -> None:
        if not self._disabled:
            rank_zero_warn(f"Sharpness is disabled: {reason}.")
        self._disabled = True

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure once per step."""
        step = trainer.global_step
        if self._disabled or self._batch is None or (self.measurements and self.measurements[-1].step == step):
            return
        optimizer = trainer.optimizers[0]
        parameters = [each for group in optimizer.param_groups for each in trained(group)]
        limits, count = stability(optimizer), sum(each.numel() for each in parameters)
        if self._vector is None or len(self._vector) != count:  # more layers are trained than before
            self._vector = torch.randn(count, generator=torch.Generator().manual_seed(0))
        start = self._vector.to(parameters[0])
        batch = tuple(each.to(parameters[0].device) for each in self._batch)
        try:
            with uncompiled(pl_module), undisturbed(pl_module), torch.enable_grad():
                _use_batch_statistics(pl_module)
                product = hessian_product(_loss(pl_module, *batch), parameters, limits.scale)
                found = largest_eigenvalue(product, start, tolerance=self.tolerance, max_products=self.max_products)
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = plain_text(str(error).partition("\n")[0])[:160]
            self._disable(f"the second derivative of {type(pl_module).__name__} cannot be computed: {reason}")
            return
        self._formula = limits.formula or self._formula
        if math.isfinite(found.value):
            self._vector = found.vector
        epoch, lr = completed_epochs(trainer, within=True), float(optimizer.param_groups[0]["lr"])
        row = Measurement(step, epoch, found.value, limits.limit, lr, found.residual, found.num_products)
        self.measurements.append(row)
        self._is_logged = not math.isfinite(row.sharpness)
        values = {"sharpness/value": row.sharpness, "sharpness/limit": row.limit}
        log_scalars(trainer, {name: value for name, value in values.items() if math.isfinite(value)})

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.measurements or not trainer.is_global_zero:
            return
        from lightning_cifar.plots import draw_sharpness

        rows = [["" if value != value else f"{value:.7g}" for value in row] for row in self.measurements]
        save_table(trainer, "sharpness", HEADER, rows)
        steps, _, values, limits, lrs, *_ = zip(*self.measurements, strict=True)
        kind = type(trainer.optimizers[0]).__name__ if trainer.optimizers else "optimizer"
        title = f"{type(pl_module).__name__}, {kind}: sharpness on {self.num_samples} training samples"
        figure = draw_sharpness(steps, values, limits, lrs, formula=self._formula, title=title)
        save_figure(trainer, "sharpness", figure, tag="curves/sharpness")


def _ends(trainer: Trainer) -> bool:
    """Return whether this is the last step of the training, as far as it is known."""
    is_last_epoch = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
    return is_last_epoch or trainer.global_step == trainer.max_steps


def _use_batch_statistics(model: nn.Module) -> None:
    """Turn off dropout; batch norms stay in the mode of the training."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.training = False


def _loss(pl_module: LightningModule, inputs: Tensor, targets: Tensor) -> Tensor:
    outputs, loss = pl_module(inputs), getattr(pl_module, "loss", None)
    if callable(loss):
        value = loss(outputs, targets)
        if isinstance(value, Tensor) and value.ndim == 0:
            return value
    if isinstance(outputs, Tensor) and not targets.is_floating_point():
        return F.cross_entropy(outputs, targets)
    if isinstance(outputs, Tensor) and outputs.shape == targets.shape:
        return F.mse_loss(outputs, targets)
    raise ValueError("it has no method loss(outputs, targets)")
