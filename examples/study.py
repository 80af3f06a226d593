"""A study with two arms and three seeds, and its report.

python examples/study.py
"""

import sys
from pathlib import Path

from lightning_cifar.cli import main as lightning_cifar

STUDY = """\
name: activations
question: Does ReLU with max pooling learn faster than the LeNet of 1998?
metric: val/accuracy
seeds: 3
base:
  trainer: {max_epochs: 4, enable_progress_bar: false}
  model: {class_path: LeNet, init_args: {lr: 0.03, schedule: cosine}}
  data: {class_path: SyntheticDataModule, init_args: {num_train: 2000, num_val: 500, num_test: 500, batch_size: 16}}
arms:
  as in 1998: {model.activation: tanh, model.pooling: average}
  today: {model.activation: relu, model.pooling: max}
"""


def main() -> None:
    out = Path("runs/examples/study")
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_suffix(".yaml")
    path.write_text(STUDY)
    failed = lightning_cifar(["study", str(path), "--out", str(out)])
    sys.exit(failed or lightning_cifar(["report", str(out), "--out", str(out / "report.html")]))


if __name__ == "__main__":  # the runs are separate processes that import this file
    main()
