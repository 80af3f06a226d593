"""Table of the commands of ``lightning-cifar``, for the usage text, the dispatch and the shell completion."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """One command.

    Attributes:
        summary: One line of help.
        example: Arguments that follow the name of the command.
        module: Module below ``lightning_cifar.commands`` that has ``main`` and ``_parser``; empty for the commands of
            LightningCLI.
    """

    summary: str
    example: str
    module: str = ""


_BEST = "--ckpt_path runs/.../checkpoints/best.ckpt"

COMMANDS = {
    "fit": Command("train a network, or continue one with --resume", "--config configs/demo.yaml"),
    "fork": Command(
        "continue a run from a kept epoch with changed settings", "runs/... --epoch 10 --model.lr 0.01", "fork"
    ),
    "validate": Command("evaluate a checkpoint on the validation split", _BEST),
    "test": Command("evaluate a checkpoint on the test set", _BEST),
    "predict": Command(
        "write the probabilities of the test images, or of your own images",
        f"{_BEST} --config configs/photographs.yaml --data.root DIR",
    ),
    "lr-find": Command("sweep the learning rate and suggest one", "--config configs/lenet.yaml", "lr_find"),
    "surface": Command(
        "draw the loss around the weights of a run, with the path of the training, or between two runs",
        "runs/... --directions pca",
        "surface",
    ),
    "explain": Command(
        "show what a trained network predicts for your images, and why",
        f"{_BEST} --images DIR",
        "explain.command",
    ),
    "microscope": Command("write one offline page to explore a trained network", "runs/...", "microscope"),
    "export": Command(
        "write a trained network as one file: safetensors, onnx or pt2", "runs/... --format onnx", "export.command"
    ),
    "study": Command(
        "compare training choices over several seeds", "configs/studies/lr_regimes.yaml --jobs 2", "study"
    ),
    "report": Command("write one offline page about a study or about runs", "runs/studies/lr_regimes", "report"),
    "gradcheck": Command("compare the hand-made gradients with central differences", "--layers", "gradcheck"),
    "bench": Command("time the hand-made convolutions against those of PyTorch", "conv --shape cifar", "bench"),
    "regimes": Command("draw learning-rate regimes, without training", "--schedule cosine --warmup 0.2", "regimes"),
    "doctor": Command(
        "check this machine and its packages, with a fix for each problem", "--root data", "doctor.command"
    ),
    "completion": Command("print a script that completes commands and options in a shell", "bash", "completion"),
}


def usage_lines() -> str:
    """Return the commands with their summaries, and an example of each."""
    summaries = [f"  {name:<12}{command.summary}" for name, command in COMMANDS.items()]
    examples = [f"  lightning-cifar {name} {command.example}" for name, command in COMMANDS.items()]
    return "\n".join(["Commands:", *summaries, "", "Examples:", *examples])
