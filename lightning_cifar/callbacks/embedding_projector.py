"""Features of validation images for the projector of TensorBoard."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_cifar.analysis.embedding import features_and_outputs, last_layer
from lightning_cifar.analysis.layers import find_layer
from lightning_cifar.analysis.prediction_table import are_probabilities
from lightning_cifar.artifacts import save_embedding, writes
from lightning_cifar.callbacks.base import check_minimum, warn_of_duplicates
from lightning_cifar.callbacks.datamodule import class_names, displayable, label_name
from lightning_cifar.callbacks.probe import first_forward, integer_labels, read_samples

_BATCH = 250  # images in one forward pass


class EmbeddingProjector(Callback):
    """Write the features of fixed validation images for the PROJECTOR tab of TensorBoard.

    The features are written after the first, every n-th and the last epoch, each as a separate tensor
    ``<name>/epoch_<n>``, with the images as thumbnails and the columns label, prediction, correct, probability and
    index. Files are in ``projector/`` in the folder of each TensorBoard logger. Without one, the callback does nothing.

    Batches are (images, ...), with integer labels (N,) as second part if there are labels. ``forward`` returns logits
    or probabilities (N, K).

    Args:
        layer: name of a layer in ``model.named_modules()``, whose output is used; None uses the input of the last
            linear layer or convolution.
        num_images: number of the first images of the validation set; fewer if it is smaller. Thumbnails become smaller
            if they do not fit on a picture of 8192 x 8192 pixels.
        every_n_epochs: period in epochs.
        name: name of the tensors.

    Raises:
        ValueError: If a number is below 1 or, when training starts, the layer does not exist, or there are no
            validation images.

    Example:
        >>> trainer = Trainer(callbacks=[EmbeddingProjector(num_images=500, every_n_epochs=10)])
    """

    def __init__(
        self, layer: str | None = None, num_images: int = 1000, every_n_epochs: int = 5, name: str = "features"
    ) -> None:
        check_minimum(num_images=num_images, every_n_epochs=every_n_epochs)
        self.layer, self.num_images, self.every_n_epochs, self.name = layer, num_images, every_n_epochs, name
        self._probe: tuple[Tensor, Tensor | None] | None = None
        self._written_at = -1  # step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        warn_of_duplicates(trainer, self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.layer is None:
            last_layer(pl_module)
        else:
            find_layer(pl_module, self.layer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._probe, self._written_at = None, -1
        if writes(trainer):
            self._probe = read_samples(trainer, self.num_images, owner="EmbeddingProjector")
            self._compute(trainer, pl_module, self._probe[0][:1])  # an error is reported before the first step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch == 1 or epoch % self.every_n_epochs == 0:
            self._write(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, trainer.current_epoch)
        self._probe = None

    def _write(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        if self._probe is None or self._written_at == trainer.global_step:
            return
        self._written_at = trainer.global_step
        images, labels = self._probe
        found = [self._compute(trainer, pl_module, part) for part in torch.split(images, _BATCH)]
        features, outputs = (torch.cat(parts).float().cpu() for parts in zip(*found, strict=True))
        save_embedding(
            trainer,
            f"{self.name}/epoch_{epoch:03d}",
            features.numpy(),
            ("label", "prediction", "correct", "probability", "index"),
            _rows(trainer, outputs, labels),
            displayable(trainer, images) if images.ndim == 4 and images.shape[1] in (1, 3) else None,
        )

    def _compute(self, trainer: Trainer, pl_module: LightningModule, images: Tensor) -> tuple[Tensor, Tensor]:
        precision = trainer.precision_plugin
        with first_forward("EmbeddingProjector", pl_module, images), precision.forward_context():
            return features_and_outputs(pl_module, precision.convert_input(images), self.layer)


def _rows(trainer: Trainer, outputs: Tensor, labels: Tensor | None) -> list[tuple[object, ...]]:
    """Return label, prediction, correct, probability and index of each image; empty text where unknown."""
    count = len(outputs)
    integers = integer_labels(labels, count)
    true = None if integers is None else integers.tolist()
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        return [("" if true is None else true[i], "", "", "", i) for i in range(count)]
    best, guesses = (outputs if are_probabilities(outputs, 1e-3) else outputs.softmax(1)).max(dim=1)
    names = class_names(getattr(trainer, "datamodule", None))
    rows: list[tuple[object, ...]] = []
    for i, (guess, probability) in enumerate(zip(guesses.tolist(), best.tolist(), strict=True)):
        known = ("", "") if true is None else (label_name(names, true[i]), "yes" if true[i] == guess else "no")
        rows.append((known[0], label_name(names, guess), known[1], f"{probability:.4f}", i))
    return rows
