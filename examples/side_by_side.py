"""Train two networks on the same batches: effect of batch normalisation on the inputs of the activations.

python examples/side_by_side.py
"""

import lightning.pytorch as pl

from lightning_cifar import ActivationSnapshots, LossCurves, SideBySide, SyntheticDataModule, artifacts


def main() -> None:
    pl.seed_everything(0)
    data = SyntheticDataModule(num_train=3000, num_val=300, num_test=300, batch_size=100)
    pair = SideBySide(
        members={
            "plain": {"class_path": "MLP"},
            "batch_norm": {"class_path": "MLP", "init_args": {"batch_norm": True}},
        },
        shared={"hidden_sizes": [48, 24], "lr": 0.05, "momentum": 0.0},
    )
    trainer = pl.Trainer(
        max_epochs=4,
        default_root_dir="runs/examples/side_by_side",
        callbacks=[ActivationSnapshots(), LossCurves()],
    )
    trainer.fit(pair, data)
    for name in ("plain", "batch_norm"):
        print(f"{name}: validation accuracy {trainer.callback_metrics[f'val/accuracy/{name}']:.1%}")
    print("distributions:", artifacts.run_folder(trainer) / "pictures" / "activations_ridge.png")


if __name__ == "__main__":
    main()
