"""Export a trained network to ONNX and run it without torch and without this package.

python examples/export.py       (needs: pip install '.[export]')
"""

import json
import sys
from pathlib import Path

import numpy as np

from lightning_cifar import SyntheticDataModule
from lightning_cifar.cli import main as lightning_cifar


def main() -> None:
    try:
        import onnxruntime
    except ImportError:
        sys.exit("this example needs: pip install 'lightning-cifar[export]'")
    run = Path("runs/examples/export")
    if not run.exists():
        args = "fit --model LeNet --model.lr 0.05 --data SyntheticDataModule --data.num_train 4000 --data.batch_size 32"
        if lightning_cifar([*args.split(), "--trainer.max_epochs", "3", "--run_dir", str(run)]):
            sys.exit(1)
    if code := lightning_cifar(["export", str(run), "--format", "onnx", "--overwrite"]):
        sys.exit(code)

    session = onnxruntime.InferenceSession(run / "export" / "best.onnx")
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    images, labels = SyntheticDataModule(num_train=1, num_val=1, num_test=8).load("test")  # bytes (N, H, W, C)
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32) / 255  # the file contains the normalisation
    (logits,) = session.run(["logits"], {"images": pixels})
    for label, k in zip(labels, logits.argmax(1), strict=True):
        print(f"true class {names[label]}, predicted {names[k]}")


if __name__ == "__main__":
    main()
