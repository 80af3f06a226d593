"""Your own callback: compute, draw and save. It works with any module and any logger.

python examples/own_callback.py
"""

import lightning.pytorch as pl
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from lightning_cifar import LeNet, SyntheticDataModule, artifacts


class WeightNorms(Callback):
    """Draws the norm of each weight matrix over the epochs, as pictures/weight_norms.png and in every logger."""

    def __init__(self) -> None:
        self.norms: dict[str, list[float]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, weight in pl_module.named_parameters():
            if weight.ndim > 1:
                self.norms.setdefault(name, []).append(weight.detach().norm().item())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figure = Figure(figsize=(7, 4), layout="constrained")  # without pyplot, no figure stays open
        axes = figure.add_subplot(xlabel="epoch", ylabel="L2 norm of the weights")
        for name, norms in self.norms.items():
            axes.plot(range(1, len(norms) + 1), norms, marker=".", label=name)
        axes.legend(fontsize="small")
        artifacts.save_figure(trainer, "weight_norms", figure)

    def state_dict(self) -> dict[str, list[float]]:
        return self.norms  # so that a resumed run keeps its curves

    def load_state_dict(self, state_dict: dict[str, list[float]]) -> None:
        self.norms = state_dict


def main() -> None:
    pl.seed_everything(0)
    data = SyntheticDataModule(num_train=2000, num_val=200, num_test=200, batch_size=64)
    trainer = pl.Trainer(max_epochs=4, default_root_dir="runs/examples/own_callback", callbacks=[WeightNorms()])
    trainer.fit(LeNet(lr=0.05), data)
    print("picture:", artifacts.run_folder(trainer) / "pictures" / "weight_norms.png")


if __name__ == "__main__":
    main()
