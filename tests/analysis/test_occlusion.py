"""Occlusion maps, compared with captum, with values computed by hand and with full forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Occlusion
from torch import Tensor, nn

from lightning_cifar.analysis.occlusion.maps import occlusion_map
from lightning_cifar.analysis.occlusion.windows import thin


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def small_net(channels: int = 3, num_classes: int = 5) -> nn.Module:
    layers = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )
    return settle(layers)


def settle(model: nn.Module) -> nn.Module:
    """Set random statistics and weights, so that folding a batch norm has an effect."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def by_captum(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    fill: float | Tensor,
    output: str = "probability",
) -> Tensor:
    """(N, H, W)"""

    def answer(x: Tensor) -> Tensor:
        logits = model(x)
        return logits.softmax(1) if output == "probability" else logits

    channels = images.shape[1]
    found = Occlusion(answer).attribute(
        images,
        (channels, *window),
        strides=(channels, *stride),
        baselines=fill,
        target=targets,
        perturbations_per_eval=8,
    )
    return found[:, 0]


def one_by_one(model: nn.Module, images: Tensor, window: int, fill: float, stride: int = 1) -> Tensor:
    """(N, P, Q) drops of the predicted class's logit, window by window."""
    drops = []
    with torch.no_grad():
        clean = model(images)
        index = torch.arange(len(images)), clean.argmax(1)
        for i in range(0, images.shape[2] - window + 1, stride):
            for j in range(0, images.shape[3] - window + 1, stride):
                covered = images.clone()
                covered[:, :, i : i + window, j : j + window] = fill
                drops.append(clean[index] - model(covered)[index])
    return torch.stack(drops, 1).reshape(len(images), (images.shape[2] - window) // stride + 1, -1)


def test_hand_computed() -> None:
    class Corner(nn.Module):
        """The logit of class 1 is the weighted sum of the pixels, with weights 1 to 16; class 0 has 0."""

        def forward(self, x: Tensor) -> Tensor:
            total = (x[:, 0] * torch.arange(1.0, 17).view(4, 4)).sum((1, 2))
            return torch.stack([torch.zeros_like(total), total], 1)

    found = occlusion_map(
        Corner(), torch.ones(1, 1, 4, 4), torch.tensor([1]), window=2, stride=2, fill=0.0, output="logit"
    )
    # 1 + 2 + 5 + 6, 3 + 4 + 7 + 8, 9 + 10 + 13 + 14, 11 + 12 + 15 + 16
    expected = torch.tensor([[14.0, 22], [46, 54]])
    assert torch.equal(found.values[0], expected)
    assert torch.equal(found.pixels[0], expected.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert found.clean.tolist() == [136]
    # Overlapping windows: four of the 3 x 3 positions cover the middle pixel.
    found = occlusion_map(Corner(), torch.ones(1, 1, 4, 4), torch.tensor([1]), window=2, fill=0.0, output="logit")
    values = torch.tensor([[14.0, 18, 22], [30, 34, 38], [46, 50, 54]])
    assert torch.equal(found.values[0], values)
    assert found.pixels[0, 0, 0] == 14
    assert found.pixels[0, 0, 1] == 16
    assert found.pixels[0, 1, 1] == (14 + 18 + 30 + 34) / 4
    # With a stride of 3 the border cuts off the second window: it covers only the last row.
    found = occlusion_map(
        Corner(), torch.ones(1, 1, 4, 4), torch.tensor([1]), window=(3, 4), stride=3, fill=0.0, output="logit"
    )
    assert found.values[0].flatten().tolist() == [78, 58]
    assert found.pixels[0, :, 0].tolist() == [78, 78, 78, 58]


@pytest.mark.parametrize(
    ("window", "stride", "fill", "output"),
    [
        ((3, 3), (1, 1), 0.0, "probability"),
        ((3, 3), (2, 2), 0.5, "probability"),
        ((4, 2), (3, 1), -1.0, "logit"),
        ((10, 3), (4, 2), 0.0, "probability"),
        ((5, 11), (5, 7), 2.0, "logit"),
        ((1, 1), (1, 1), 0.0, "logit"),
    ],
)
def test_equals_captum(
    window: tuple[int, int], stride: tuple[int, int], fill: float, output: Literal["probability", "logit"]
) -> None:
    model, images = small_net(), torch.randn(3, 3, 10, 11)
    found = occlusion_map(model, images, window=window, stride=stride, fill=fill, output=output)
    expected = by_captum(model, images, found.targets, window, stride, fill, output)
    assert torch.allclose(found.pixels, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fill", ["mean", "blur", "channels"])
def test_fills_equal_captum_with_the_same_baseline(fill: Literal["mean", "blur", "channels"]) -> None:
    model, images = small_net(), torch.randn(2, 3, 9, 9)
    baseline: Tensor
    if fill == "mean":
        given, baseline = fill, images.mean((2, 3), keepdim=True).expand_as(images)
    elif fill == "channels":
        given = torch.tensor([0.1, -0.2, 0.3])
        baseline = given[:, None, None].expand_as(images)
    else:
        # A Gaussian of half the window, over the pixels inside the image.
        at = torch.arange(9.0)
        mix = torch.exp(-((at[:, None] - at) ** 2) / (2 * 2.0**2))
        mix /= mix.sum(1, keepdim=True)
        given, baseline = fill, torch.einsum("ij,ncjk,lk->ncil", mix, images, mix)
    found = occlusion_map(model, images, window=4, stride=2, fill=given)
    expected = by_captum(model, images, found.targets, (4, 4), (2, 2), baseline)
    assert torch.allclose(found.pixels, expected, atol=1e-5, rtol=0)


def test_zero_where_the_network_ignores_pixels() -> None:
    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(x[..., :6])
            return logits

    found = occlusion_map(Left(), torch.randn(2, 3, 12, 12), window=2, fill=5.0)
    assert found.values[:, :, 6:].abs().max() < 1e-6
    assert found.pixels[:, :, 7:].abs().max() < 1e-6
    assert found.values[:, :, :5].abs().amax((1, 2)).min() > 1e-4


class Residual(nn.Module):
    def __init__(self, num_in: int, num_out: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            num_in, num_out, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False
        )
        self.bn1 = nn.BatchNorm2d(num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(num_out)
        self.skip = nn.Conv2d(num_in, num_out, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        branch += self.skip(x)
        return F.relu(branch, inplace=True)


class Normalised(nn.Module):
    """A fixed normalisation, arithmetic, a concatenation, and views that need one memory format."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3])[:, None, None])
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.c = nn.Conv2d(8, 4, 3, stride=2)
        self.head = nn.Linear(4 * 7 * 7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / 0.5
        x = torch.cat([self.a(x).relu(), torch.sigmoid(self.b(x)) * 2 + 1], 1)
        x = F.gelu(self.c(x))
        out: Tensor = self.head(x.view(x.size(0), -1))
        return out


class Resized(nn.Module):
    """Decisions by the size of the images, as in pretrained networks."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 5, 2, padding=2), nn.BatchNorm2d(8), nn.ReLU(True), *head(8))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[-2:] != (24, 24):
            x = F.interpolate(x, (24, 24), mode="bilinear", antialias=max(x.shape[-2:]) > 24)
        logits: Tensor = self.net(x)
        return logits


def head(num_in: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_in, 5)]


NETS: dict[str, Callable[[], nn.Module]] = {
    "stride and padding": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, padding=(2, 1)), nn.ReLU(True), nn.Conv2d(8, 8, 3, padding="same"), nn.ReLU(), *head(8)
    ),
    "dilation": lambda: nn.Sequential(
        nn.Conv2d(3, 40, 3, dilation=2), nn.ReLU(True), nn.Conv2d(40, 40, 3, padding=3, dilation=3), *head(40)
    ),
    "wide": lambda: nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(True), nn.Conv2d(64, 48, 3), nn.BatchNorm2d(48), nn.Tanh(), *head(48)
    ),
    "groups": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3, groups=4),
        nn.PReLU(16),
        nn.Conv2d(16, 8, 1),
        *head(8),
    ),
    "pooling": lambda: nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(3, 2, padding=1), nn.ReLU(), nn.AvgPool2d(3, 1, padding=1)),
        *(nn.Conv2d(8, 8, 3), nn.AvgPool2d(2, ceil_mode=True), *head(8)),
    ),
    "other paddings": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.AvgPool2d(3, 1, 1, count_include_pad=False), *head(8)
    ),
    "dropout": lambda: nn.Sequential(
        nn.Dropout2d(0.5), nn.Conv2d(3, 8, 3), nn.Dropout(0.5), nn.ReLU(True), nn.Conv2d(8, 8, 3), *head(8)
    ),
    "residual": lambda: nn.Sequential(Residual(3, 8), Residual(8, 12, 2), Residual(12, 12, dilation=2), *head(12)),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.ReLU(True), *head(8)),
    "arithmetic": Normalised,
    "resized": Resized,
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("double", [False, True])
def test_partial_equals_full(name: str, double: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = settle(NETS[name]()), torch.randn(2, 3, 16, 16)
    if double:
        model, images = model.double(), images.double()

    def refuse(*_: object) -> bool:
        raise AssertionError("the network was not traced")

    monkeypatch.setattr("lightning_cifar.analysis.occlusion.maps.whole_forward", refuse)
    found = occlusion_map(model, images, window=4, fill=0.3, output="logit")
    assert (found.values - one_by_one(model, images, 4, 0.3)).abs().max() < (1e-12 if double else 1e-5)


def test_the_outputs_of_all_classes_are_those_of_covered_images() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    images = torch.rand(2, 3, 8, 8)
    counts: list[int] = []
    found = occlusion_map(model, images, window=3, stride=2, all_classes=True, chunk=4, advance=counts.append)
    assert sum(counts) == 2 * 4 * 4
    assert len(counts) > 4
    assert found.outputs is not None
    for p, q in ((0, 0), (1, 2), (3, 3)):
        covered = images.clone()
        covered[..., 2 * p : 2 * p + 3, 2 * q : 2 * q + 3] = images.mean((2, 3), keepdim=True)
        with torch.no_grad():
            torch.testing.assert_close(found.outputs[:, p, q], model(covered).softmax(1))
    plain = occlusion_map(model, images, window=3, stride=2)
    assert plain.outputs is None
    torch.testing.assert_close(found.values, plain.values)
    torch.testing.assert_close(found.clean[:, None, None] - found.values, found.outputs[[0, 1], ..., found.targets])
    with pytest.raises(ValueError, match=r"^`all_classes` needs mode='exact'\.$"):
        occlusion_map(model, images, mode="fast", all_classes=True)


def test_fast_positions_are_interpolated() -> None:
    kept, weights = thin([(i, i + 8) for i in range(12)])
    assert kept == [0, 2, 4, 6, 8, 10, 11]
    torch.testing.assert_close(weights @ torch.tensor(kept, dtype=torch.float32), torch.arange(12.0))
    model, images = small_net(), torch.randn(2, 3, 12, 12)
    exact = occlusion_map(model, images, window=8, fill=0.0)
    fast = occlusion_map(model, images, window=8, fill=0.0, mode="fast")
    assert (fast.values - exact.values).abs().max() < 0.05
    assert fast.error.max() < 0.05
