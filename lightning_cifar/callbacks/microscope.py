"""Page to explore the network at the end of a training run."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cifar.analysis.microscope.content import collect
from lightning_cifar.analysis.microscope.reading import read_network
from lightning_cifar.artifacts import run_folder
from lightning_cifar.callbacks.base import check_minimum, warn_of_duplicates
from lightning_cifar.callbacks.datamodule import class_names
from lightning_cifar.callbacks.probe import first_forward, read_probe, validation_batches
from lightning_cifar.callbacks.random_states import random_state_restored
from lightning_cifar.callbacks.terminal import progress_bar
from lightning_cifar.files.atomic import write_atomically


class Microscope(Callback):
    """Write ``microscope.html`` at the end of a training run: an offline page to explore the network.

    The page shows the maps of all layers for correctly and wrongly classified validation images, the arithmetic of each
    value, the validation patches that activate each channel most, and the probabilities with a window over the image.
    ``lightning-cifar microscope`` writes it with several states of the training. See docs/microscope.md.

    Args:
        num_images: number of validation images.
        window: side of the occluding window in pixels; None is a quarter of the image.

    Raises:
        ValueError: If a number is out of range; when training starts, if the network cannot be traced, or does not map
            images (N, C, H, W) to logits (N, K).

    Example:
        >>> trainer = Trainer(callbacks=[Microscope(num_images=4)])
    """

    def __init__(self, num_images: int = 8, window: int | None = None) -> None:
        check_minimum(num_images=num_images, window=window)
        self.num_images, self.window = num_images, window

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            warn_of_duplicates(trainer, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set untyped
            image, labels = read_probe(trainer, [0], owner=type(self).__name__)
            with first_forward("Microscope", pl_module, image):
                read_network(pl_module, image)
            if labels is None:
                raise ValueError("Microscope needs validation batches (images, labels): add integer labels (N,)")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        from lightning_cifar.plots import microscope_html
        from lightning_cifar.plots.pages.microscope_page import MOST_VALUES

        data = getattr(trainer, "datamodule", None)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            with random_state_restored():
                for batch in validation_batches(trainer, "Microscope needs validation images"):
                    assert isinstance(batch, tuple | list)  # as in the first one
                    yield batch[0], batch[1]

        title = f"after epoch {trainer.current_epoch}"
        try:
            content = collect(
                pl_module,
                title,
                batches=batches,
                num_images=self.num_images,
                window=self.window,
                most_values=MOST_VALUES,
                progress=functools.partial(progress_bar, shown=trainer.progress_bar_callback is not None),
            )
            written = microscope_html(
                content,
                network=type(pl_module).__name__,
                classes=class_names(data),
                mean=getattr(data, "mean", None),
                std=getattr(data, "std", None),
            )
        except ValueError as error:
            rank_zero_warn(f"Microscope writes no page: {error}.")
            return
        write_atomically(run_folder(trainer) / "microscope.html", written.text.encode("utf-8", "replace"))
