"""The displayed layers, their receptive fields, and the pass over the validation split."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cifar.analysis.microscope import survey as survey_module
from lightning_cifar.analysis.microscope.content import collect
from lightning_cifar.analysis.microscope.layers import Network
from lightning_cifar.analysis.microscope.reading import read_network
from lightning_cifar.analysis.microscope.survey import choose_images, survey
from lightning_cifar.models import MLP, ConvNet, DilatedNet, LeNet, LinearClassifier, ResNetCIFAR, TwoLayerNet


class Branches(nn.Module):
    """Concatenation, a strided shortcut with zeros, grouped and dilated kernels, and pooling with padding."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding="same", dilation=2)
        self.right = nn.Conv2d(3, 2, (1, 3), padding=(0, 1), bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=3)
        self.head = nn.Linear(8, 3)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 3 and x.shape[-2:] == (32, 32):  # known when it is traced
            x = x - x.new_tensor([2.0, 3.0]).max() * self.mean
        x = F.gelu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        x = F.silu(F.pad(self.grouped(x), (0, 0, 0, 0, 1, 1)) - shortcut)
        x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return self.head(F.adaptive_avg_pool2d(F.max_pool2d(x, 2, 1), 1).flatten(1) * 0.5 + 1)


class Resized(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = super().forward(F.interpolate(x, (48, 80), mode="bilinear"))
        return result


MODELS: dict[str, Callable[[], nn.Module]] = {
    "LeNet": LeNet,
    "hand-made": lambda: LeNet(layers="hand_made", activation="tanh", pooling="average"),
    "DilatedNet": DilatedNet,
    "ResNetCIFAR": lambda: ResNetCIFAR(depth=8),  # type: ignore[arg-type]
    "ConvNet": ConvNet,
    "MLP": lambda: MLP(batch_norm=True, dropout=0.1),
    "LinearClassifier": LinearClassifier,
    "TwoLayerNet": TwoLayerNet,
    "branches": Branches,
    "resized": lambda: Resized(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ),
    "pooling before padding": lambda: nn.Sequential(
        *(nn.Conv2d(3, 4, 7, stride=2, padding=3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 3)),
    ),
}


def make(name: str, seed: int = 0) -> nn.Module:
    """A network with random weights and random statistics of its batch norms."""
    torch.manual_seed(seed)
    model = MODELS[name]().eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model


def values_of(network: Network, images: Tensor) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    network.forward(images, lambda number, values: found.update({number: values.clone()}))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_displayed_with_its_parameters_and_the_last_one_has_the_logits(name: str) -> None:
    model, images = make(name), torch.randn(3, 3, 32, 32)
    network = read_network(model, images[:1])
    found = values_of(network, images)
    assert list(found) == list(range(len(network.layers)))
    with torch.no_grad():
        torch.testing.assert_close(found[network.output].flatten(1), model(images))
    assert sum(layer.num_parameters for layer in network.layers) == sum(p.numel() for p in model.parameters())
    others = [layer.name for layer in network.layers if layer.kind == "other"]
    assert others == {"branches": ["sub"], "resized": ["interpolate"]}.get(name, [])  # sub: of a tensor, no layer


@pytest.mark.parametrize("name", sorted({*MODELS} - {"hand-made", "MLP", "LinearClassifier", "TwoLayerNet"}))
def test_pixels_outside_a_receptive_field_change_nothing(name: str) -> None:
    image = torch.randn(1, 3, 32, 32)
    network = read_network(make(name), image)
    clean = values_of(network, image)
    generator = torch.Generator().manual_seed(1)
    for number, layer in enumerate(network.layers):
        y, x = (int(torch.randint(size, (), generator=generator)) for size in layer.shape[1:])
        y, x = (0, x) if number % 2 else (y, layer.shape[2] - 1)  # at the border, where the padding is
        (top, bottom), (left, right) = network.field_of(number, (y, y + 1), (x, x + 1))
        changed = torch.randn(1, 3, 32, 32, generator=generator)
        changed[..., top:bottom, left:right] = image[..., top:bottom, left:right]
        assert torch.equal(values_of(network, changed)[number][..., y, x], clean[number][..., y, x]), layer.name


def test_a_resized_pixel_depends_on_its_neighbours() -> None:
    network = read_network(make("resized"), torch.zeros(1, 3, 32, 32))
    assert network.field_of(1, (0, 1), (79, 80)) == ((0, 1), (31, 32))
    assert network.field_of(1, (24, 25), (40, 41)) == ((15, 17), (15, 17))
    assert network.field_of(2, (11, 12), (19, 20)) == ((14, 17), (14, 17))


@pytest.mark.parametrize("name", ["LeNet", "ResNetCIFAR"])
def test_receptive_fields_are_not_too_large(name: str) -> None:
    """The gradient reaches their border."""
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    model = make(name)
    network = read_network(model, image.detach())
    layer = network.layers[3]  # the second convolution of a branch
    y = x = layer.shape[1] // 2
    field = network.field_of(3, (y, y + 1), (x, x + 1))
    kept: list[Tensor] = []
    module = model.get_submodule(layer.name)
    with torch.enable_grad():
        hook = module.register_forward_hook(lambda _, __, output: kept.append(output))
        model(image)
        hook.remove()
        for c in range(layer.shape[0]):
            kept[0][0, c, y, x].backward(retain_graph=True)
    assert image.grad is not None
    rows, columns = (image.grad[0].abs().sum((0, axis)).nonzero()[:, 0] for axis in (2, 1))
    reached = tuple((int(at.min()), int(at.max()) + 1) for at in (rows, columns))
    # Max pooling and ReLU have no gradient for the values that they do not take.
    for (begin, end), (first, last) in zip(field, reached, strict=True):
        assert begin <= first <= begin + 3
        assert end - 3 <= last <= end


@pytest.mark.parametrize("chunk", [3, 50])
def test_top_patches_and_means_equal_a_search_over_all_images(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(2)
    images, labels = torch.randn(40, 3, 16, 16, generator=generator), torch.arange(40) % 3
    images[7] = images[3]  # equal values: the lower number comes first
    labels[5] = -1
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(180, 4))
    network = read_network(model, images[:1])
    counts: list[int] = []
    batches = list(zip(images.split(13), labels.split(13), strict=True))
    found = survey(network, batches, advance=counts.append)
    assert (sum(counts), max(counts)) == (40, min(chunk, 13))
    with torch.no_grad():
        maps = [images, model[:2](images), model[:3](images), model(images)[..., None, None]]
    for number, every in enumerate(maps):
        top, flat = found.patches[number], every.flatten(2)
        for c in range(every.shape[1]):
            best = sorted(range(40), key=lambda i: (-float(flat[i, c].max()), i))[:9]
            assert top.images[:, c].tolist() == best
            torch.testing.assert_close(top.values[:, c], flat[best, c].max(1).values)
            assert top.positions[:, c].tolist() == [int(flat[i, c].argmax()) for i in best]
        for k in range(3):
            torch.testing.assert_close(found.means[number][k], every[labels == k].mean((0, 2, 3)))
        assert found.means[number][3].isnan().all()  # a class without images
    torch.testing.assert_close(found.logits, maps[3].flatten(1))
    assert torch.equal(found.labels, labels)


def test_half_of_the_images_are_mistakes_of_different_classes() -> None:
    labels = torch.arange(40) % 4
    predicted = torch.where(torch.arange(40) < 20, labels, (labels + 1) % 4)
    chosen = choose_images(F.one_hot(predicted, 4).float(), labels, 8)
    assert chosen == [0, 1, 2, 3, 20, 21, 22, 23]
    assert choose_images(F.one_hot(labels, 4).float(), labels, 3) == [0, 1, 2]
    assert choose_images(F.one_hot((labels + 1) % 4, 4).float(), labels, 99) == list(range(40))


def test_content_and_model_are_unchanged_by_other_images_and_modes() -> None:
    model = make("branches").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    found = collect(model, "now", images=images, window=16)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    alone = collect(model, "now", images=images[1:2], window=16)
    for name, array in alone.states[0][1].items():
        whole = found.states[0][1][name]
        expected = whole[1:2] if name.endswith("values") else whole
        torch.testing.assert_close(torch.from_numpy(array), torch.from_numpy(expected))
    torch.testing.assert_close(
        torch.from_numpy(alone.shared["occlusion"][0]), torch.from_numpy(found.shared["occlusion"][1])
    )


@pytest.mark.parametrize(("most", "kept"), [(4 * 210, 4), (3 * 210 - 1, 2), (1, 1)])
def test_images_with_too_many_values_are_left_out(most: int, kept: int) -> None:
    model, images = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(102, 6)), torch.randn(4, 3, 2, 17)
    whole = collect(model, "now", images=images, window=2)
    found = collect(model, "now", images=images, window=2, most_values=most)
    assert whole.left_out == []
    assert found.left_out == ([f"{4 - kept} of 4 images (210 values of maps in each)"] if kept < 4 else [])
    assert found.labels == [None] * kept
    for arrays, expected in ((found.states[0][1], whole.states[0][1]), (found.shared, whole.shared)):
        for name in arrays:
            if name.endswith("values") or name == "occlusion":
                torch.testing.assert_close(torch.from_numpy(arrays[name]), torch.from_numpy(expected[name][:kept]))
    batches = [(images, torch.arange(4) % 2)]
    assert len(collect(model, "now", batches=lambda: batches, window=2, most_values=most).labels) == kept


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.mean() > 0 else -x.flatten(1)


def test_networks_without_layers_or_logits() -> None:
    with pytest.raises(ValueError, match=r"^Undecided cannot be traced: .*; remove this from forward$"):
        read_network(Undecided(), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"^Conv2d must return logits \(N, K\), not \(1, 2, 4, 4\)$"):
        read_network(nn.Sequential(nn.Conv2d(3, 2, 1))[0], torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"^there are no images: the validation split is empty$"):
        survey(read_network(nn.Flatten(), torch.zeros(1, 3, 1, 1)), [])
    with pytest.raises(ValueError, match=r"^there are no images: pass images, or batches"):
        collect(nn.Flatten(), "now")
