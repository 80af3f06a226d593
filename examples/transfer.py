"""Replace the last layer of a trained network and train only this layer.

    python examples/transfer.py

The features of the frozen layers are computed once. To avoid a download, the network is first trained here on other
images; ``weights="default"`` with ``input_size=224`` uses the published ImageNet weights.
"""

import lightning.pytorch as pl

from lightning_cifar import PretrainedResNet, SyntheticDataModule


def main() -> None:
    pl.seed_everything(0)
    many = SyntheticDataModule(num_train=3000, num_val=200, num_test=200, batch_size=64)
    body = PretrainedResNet(arch="resnet18", weights=None, input_size=32, train="all", lr=0.02, schedule="cosine")
    trainer = pl.Trainer(max_epochs=2, default_root_dir="runs/examples/transfer")
    trainer.fit(body, many)
    trainer.save_checkpoint("runs/examples/transfer/body.ckpt")

    few = SyntheticDataModule(num_train=300, num_val=200, num_test=500, batch_size=50, data_seed=1)
    for weights in (None, "runs/examples/transfer/body.ckpt"):
        model = PretrainedResNet(arch="resnet18", weights=weights, input_size=32, train="head", lr=0.02)
        trainer = pl.Trainer(
            max_epochs=10,
            default_root_dir="runs/examples/transfer",
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=5,
        )
        trainer.fit(model, few)
        accuracy = trainer.test(model, few, verbose=False)[0]["test/accuracy"]
        print(f"a head on {'random weights' if weights is None else 'a trained body'}, 300 images: {accuracy:.1%}")


if __name__ == "__main__":
    main()
