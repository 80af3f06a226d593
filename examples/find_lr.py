"""Find a learning rate, train with it, and print the schedule.

python examples/find_lr.py
"""

import lightning.pytorch as pl

from lightning_cifar import LeNet, LRRangeFinder, SyntheticDataModule, artifacts, lr_factor


def main() -> None:
    pl.seed_everything(0)
    data = SyntheticDataModule(num_train=2000, num_val=200, num_test=200, batch_size=64)
    model = LeNet(schedule="cosine", warmup=0.2)
    finder = LRRangeFinder(num_steps=80, num_sweeps=2, apply=True)
    trainer = pl.Trainer(max_epochs=3, default_root_dir="runs/examples/find_lr", callbacks=[finder])
    trainer.fit(model, data)
    print(f"trained with a peak of {model.lr:.3g}; the sweep: {artifacts.run_folder(trainer)}/lr_range.html")
    for done in (0.0, 0.2, 0.6, 1.0):
        factor = lr_factor(done, schedule="cosine", warmup=0.2)
        print(f"after {done:4.0%} of the training the learning rate is {model.lr * factor:.3g}")


if __name__ == "__main__":
    main()
