"""Progress of a training run, in steps and epochs."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer


def step_of(trainer: Trainer, pl_module: LightningModule) -> int:
    """Return the number of training steps: optimizer steps, or batches with manual optimization.

    With manual optimization a module may have several optimizers, whose steps the trainer counts one by one.
    """
    if pl_module.automatic_optimization:
        return trainer.global_step
    processed: int = trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
    return processed


def epochs_of(trainer: Trainer) -> float:
    """Return the number of completed epochs, plus the completed fraction of the current epoch."""
    batches = trainer.num_training_batches
    if not 0 < batches < float("inf"):
        return trainer.current_epoch + 1.0
    return trainer.current_epoch + min(1.0, trainer.fit_loop.epoch_loop.batch_progress.current.ready / batches)


def completed_epochs(trainer: Trainer, *, within: bool) -> float:
    """Return the number of completed epochs at any time, with the completed fraction of the current epoch.

    Args:
        trainer: the trainer.
        within: whether the current epoch has started; before that, the batch counter may be that of the last epoch.
    """
    batches, progress = trainer.num_training_batches, trainer.fit_loop.epoch_loop.batch_progress
    part = 1.0 if progress.is_last_batch else 0.0
    if 0 < batches < float("inf"):
        part = min(1.0, progress.current.ready / batches)
    return trainer.current_epoch + (part if within or part < 1 else 0.0)
