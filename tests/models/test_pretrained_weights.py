"""Weights from torch's cache, a server and files; and the errors if they do not fit."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from shared import quiet_trainer
from torch import Tensor

from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import PretrainedResNet, PretrainedSqueezeNet
from lightning_cifar.models.pretrained_weights import cached_file

ENTRY = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
Publish = Callable[..., Path]


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(5)
    weights: dict[str, Tensor] = torchvision.models.squeezenet1_1().state_dict()
    return weights


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> Publish:
    """Write weights to a server (a folder), and return their path."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    def write(*, digest: str | None = None, server: Path | None = None) -> Path:
        server = server or tmp_path / "server"
        server.mkdir(parents=True, exist_ok=True)
        torch.save(state, server / "new.pth")
        found = hashlib.sha256((server / "new.pth").read_bytes()).hexdigest()[:8]
        path = (server / "new.pth").rename(server / f"squeezenet1_1-{digest or found}.pth")
        monkeypatch.setattr(ENTRY.value, "url", path.as_uri())
        return path

    return write


def build(weights: str | None = "default", **kwargs: Any) -> PretrainedSqueezeNet:
    return PretrainedSqueezeNet("squeezenet1_1", weights=weights, input_size=32, **kwargs)


def assert_body_is(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    for name, value in model.get_submodule("network").state_dict().items():
        if not name.startswith("classifier.1"):
            assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("name", ["default", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1"])
def test_published_weights_are_downloaded_once_and_then_cached(
    name: str, publish: Publish, state: dict[str, Tensor], capfd: pytest.CaptureFixture[str]
) -> None:
    published = publish()
    model = build(name)
    assert_body_is(model, state)
    assert model.network.get_submodule("classifier.1").weight.shape == (10, 512, 1, 1)
    assert "%" in capfd.readouterr().err  # a progress bar
    assert cached_file(ENTRY).is_file()
    published.unlink()
    assert_body_is(build(name), state)


def test_the_last_layer_is_random_unless_requested(publish: Publish, state: dict[str, Tensor]) -> None:
    publish()
    name = "classifier.1.weight"
    assert not torch.equal(build(num_classes=1000).network.state_dict()[name], state[name])
    assert torch.equal(build(num_classes=1000, new_head=False).network.state_dict()[name], state[name])
    with pytest.raises(ValueError, match=r"classifier.1.weight is 1000 x 512 x 1 x 1, not 10 x 512 x 1 x 1"):
        build(new_head=False)
    torch.manual_seed(1)
    first = build().network.state_dict()[name]
    torch.manual_seed(1)
    assert torch.equal(build().network.state_dict()[name], first)
    bound = 512**-0.5
    assert 0.9 * bound < first.abs().max() <= bound  # the layer's own initialisation


def test_the_error_without_a_network_names_url_and_path(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    publish()
    url = "http://127.0.0.1:9/squeezenet1_1-0123abcd.pth"  # a closed port
    monkeypatch.setattr(ENTRY.value, "url", url)
    path = cached_file(ENTRY)
    expected = rf"squeezenet1_1 could not be downloaded \(.*\): download {url} and save it as {re.escape(str(path))}$"
    with pytest.raises(OSError, match=expected) as caught:
        build()
    assert "\n" not in str(caught.value)
    assert not list(path.parent.iterdir())


def test_a_hash_that_does_not_match_raises(publish: Publish) -> None:
    publish(digest="deadbeef")
    with pytest.raises(ValueError, match=r'does not match the hash in its name: .*expected "deadbeef"'):
        build()
    assert not cached_file(ENTRY).exists()
    cached = publish(digest="deadbeef", server=cached_file(ENTRY).parent)  # in the cache already
    with pytest.raises(
        ValueError, match=r"its SHA-256 begins with \w{8}, but its name contains deadbeef: delete it"
    ) as caught:
        build()
    assert str(cached) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_network_raises(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    assert_body_is(build(str(path)), state)
    expected = r"mine.pth contains weights of another network than resnet18 \(it fits squeezenet1_1\): conv1.weight is"
    with pytest.raises(ValueError, match=expected) as caught:
        PretrainedResNet(weights=str(path))
    assert "\n" not in str(caught.value)
    torch.save({name: value for name, value in state.items() if "features.9" not in name}, path)
    with pytest.raises(ValueError, match=r"than squeezenet1_1: features.9.squeeze.weight is missing"):
        build(str(path))
    torch.save({**state, "extra": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"than squeezenet1_1: extra is not a weight of the network"):
        build(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", r"mine.pth is damaged, or not a file of weights"),
        ({"epoch": 3}, r"mine.pth does not contain weights by name"),
        (torch.zeros(3), r"mine.pth does not contain weights by name"),
        (Path, r"mine.pth is damaged, or not a file of weights"),  # a pickle of a class
        (None, r"weights \(=.*mine.pth\) is neither a file nor the name of weights of squeezenet1_1"),
    ],
)
def test_a_file_without_weights_raises(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as caught:
        build(str(path))
    assert "\n" not in str(caught.value)


def test_the_error_suggests_a_similar_name() -> None:
    with pytest.raises(ValueError, match=r"Did you mean IMAGENET1K_V1\? Names are default, IMAGENET1K_V1, and null"):
        build("IMAGENET1K_V2")


def test_older_files_and_half_precision_are_read(tmp_path: Path) -> None:
    torch.manual_seed(2)
    full = torchvision.models.resnet18().state_dict()
    old = {name: value.half() for name, value in full.items() if "num_batches_tracked" not in name}
    torch.save(old, tmp_path / "old.pth")
    model = PretrainedResNet(weights=str(tmp_path / "old.pth"), input_size=32)
    assert all(value.dtype == torch.float32 for value in model.parameters())
    assert not any(value.is_meta for value in model.network.state_dict().values())
    assert torch.equal(
        model.network.state_dict()["layer1.0.conv1.weight"], full["layer1.0.conv1.weight"].half().float()
    )


def test_weights_from_the_checkpoint_of_a_run(tmp_path: Path) -> None:
    """The number of classes may differ; batch norm statistics are loaded too."""
    torch.manual_seed(0)
    source = PretrainedResNet(weights=None, train="all", input_size=32)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    trainer.fit(source, SyntheticDataModule(num_train=32, num_val=8, batch_size=16, seed=0))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    model = PretrainedResNet(weights=str(tmp_path / "run.ckpt"), num_classes=5, input_size=32)
    learnt = source.network.state_dict()
    for name, value in model.network.state_dict().items():
        assert name.startswith("fc.") or torch.equal(value, learnt[name]), name
    assert model.network.get_submodule("fc").out_features == 5
