"""The shipped configurations of pretrained networks, through the command line, without their weights."""

from pathlib import Path

import pytest
import torch
import torchvision
import yaml

from lightning_cifar import cli
from lightning_cifar.models.pretrained_weights import IMAGENET_MEAN, IMAGENET_STD

FOLDER = Path(__file__).parents[2] / "configs"
NAMES = ["alexnet_filters", "inception_head", "resnet18_head", "squeezenet_head", "vgg16_bn_head"]
SMALLEST = {"alexnet_filters": "63", "inception_head": "299"}


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))


def arguments(name: str) -> list[str]:
    return [
        *("fit", "--config", str(FOLDER / f"{name}.yaml"), "--model.weights", "null"),
        *("--model.input_size", SMALLEST.get(name, "32"), "--trainer.accelerator", "cpu"),
        *("--data", "SyntheticDataModule", "--data.num_train", "4", "--data.num_val", "2", "--data.num_test", "2"),
        *("--trainer.enable_progress_bar", "false"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_builds_and_trains_a_step(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    config = yaml.safe_load(text)
    assert text.startswith("#")
    assert config["model"]["init_args"]["weights"] == "default"
    settings = config["data"]["init_args"]
    assert (tuple(settings["mean"]), tuple(settings["std"])) == (IMAGENET_MEAN, IMAGENET_STD)
    assert cli.main([*arguments(name), "--trainer.fast_dev_run", "true"]) == 0


def test_filters_of_alexnet_are_plotted(tmp_path: Path) -> None:
    slim = [*arguments("alexnet_filters"), "--trainer.enable_checkpointing", "false"]
    assert cli.main([*slim, "--run_dir", "run"]) == 0
    for name in ("filters", "filters_channels"):
        assert (tmp_path / "run" / "pictures" / f"{name}.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--model.train", "[layr4]"], "unknown stage 'layr4'. Did you mean layer4?"),
        (["--model.arch", "resnet19"], "arch (=resnet19) must be one of resnet18, resnet34"),
        (["--model.weights", "IMAGENET1K_V9"], "the name of weights of resnet18. Did you mean IMAGENET1K_V1?"),
        (["--model.cache", "disk"], "cache (=disk) must be one of auto, memory, file, never."),
        (["--data.num_views", "0"], "num_views (=0): must be at least 1."),
    ],
)
def test_a_usage_error_is_one_line_and_leaves_no_files(
    changes: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments("resnet18_head"), *changes]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning-cifar: error: ")]
    assert len(said) == 1
    assert message in said[0]
    assert not list(tmp_path.iterdir())


def test_a_finished_run_does_not_need_its_initial_weights(tmp_path: Path) -> None:
    weights = tmp_path / "mine.pth"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
    start = [*arguments("squeezenet_head"), "--model.arch", "squeezenet1_1", "--model.weights", str(weights)]
    # The warning about ImageNet's statistics is only for published weights.
    assert cli.main([*start, "--run_dir", "run", "--trainer.max_epochs", "2"]) == 0
    weights.unlink()
    assert yaml.safe_load(Path("run/config.yaml").read_text())["model"]["init_args"]["weights"] == str(weights)
    again = ["test", "--ckpt_path", "run/checkpoints/best.ckpt", "--run_dir", "t"]
    assert cli.main([*again, "--trainer.enable_progress_bar", "false"]) == 0
    more = ["fit", "--resume", "run", "--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false"]
    assert cli.main(more) == 0
