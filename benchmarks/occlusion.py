"""Speed of occlusion maps relative to captum, interleaved in one process, per image of 32 x 32 pixels.

    python benchmarks/occlusion.py [--data FOLDER] [--checkpoint best.ckpt] [--resnet weights.pt] [--rounds 5]
                                   [--device cuda]

Window 8 x 8, stride 1 by default: 625 windows per image. captum is timed with several values of
`perturbations_per_eval` (the best is used) and with its default of 1. Without --data, synthetic images are used;
without weights, the networks have initial weights. This has little effect on speed, but changes the rank correlation of
the fast mode. The bound is the number of products of whole forward passes, divided by those of the output positions
that a window can change: what an exact method could gain at most with the same convolutions.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import captum
import torch
import torchvision
from captum.attr import Occlusion
from scipy.stats import spearmanr
from torch import Tensor, nn

from lightning_cifar.analysis.occlusion.maps import occlusion_map
from lightning_cifar.data import CIFAR10DataModule, SyntheticDataModule
from lightning_cifar.models import DilatedNet

SETTINGS = (1, 4, 16, 64, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds cifar-10-batches-py")
    parser.add_argument("--checkpoint", help="checkpoint of a DilatedNet")
    parser.add_argument("--resnet", help="state dict of torchvision's resnet18 with 10 classes")
    parser.add_argument(
        "--images", type=int, default=64, help="number of images for the rank correlation of the fast mode"
    )
    parser.add_argument("--together", type=int, default=8, help="images per call of the exact mode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--networks", nargs="+", choices=("dilated", "resnet"), default=["dilated", "resnet"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = CIFAR10DataModule(options.data, verify=False) if options.data else SyntheticDataModule(num_test=1000)
    data.setup("test")
    images, _ = next(iter(data.loader("test")))
    images = images[: options.images].to(options.device)
    print(
        f"torch {torch.__version__}, captum {captum.__version__}, {options.device}, {options.threads} thread(s), "
        f"n = {options.rounds}"
    )

    dilated: nn.Module = DilatedNet()
    if options.checkpoint:
        dilated = DilatedNet.load_from_checkpoint(options.checkpoint, weights_only=True, map_location="cpu")
    resnet = torchvision.models.resnet18(num_classes=10)
    if options.resnet:
        resnet.load_state_dict(torch.load(Path(options.resnet), weights_only=True))
    for name, network in {"dilated": dilated, "resnet": resnet}.items():
        if name in options.networks:
            compare(name, network.eval().to(options.device), images, options)


def compare(name: str, network: nn.Module, images: Tensor, options: argparse.Namespace) -> None:
    together, rounds, window, stride = options.together, options.rounds, options.window, options.stride
    mean = images.mean((2, 3), keepdim=True)

    def probabilities(x: Tensor) -> Tensor:
        return network(x).softmax(1)

    def theirs(setting: int) -> Tensor:
        with torch.no_grad():
            target = network(images[:1]).argmax(1)
            settings = {"sliding_window_shapes": (3, window, window), "strides": (3, stride, stride)}
            settings["perturbations_per_eval"] = setting
            return Occlusion(probabilities).attribute(
                images[:1], target=target, baselines=mean[:1].expand_as(images[:1]), **settings
            )

    ours = occlusion_map(network, images[:1], window=window, stride=stride)
    difference = (ours.pixels[0] - theirs(16)[0, 0]).abs().max().item()
    calls: dict[str, Callable[[], object]] = {
        "exact": lambda: occlusion_map(network, images[:together], window=window, stride=stride),
        "exact, one image": lambda: occlusion_map(network, images[:1], window=window, stride=stride),
        "fast": lambda: occlusion_map(network, images, window=window, stride=stride, mode="fast"),
        **{f"captum {setting}": lambda setting=setting: theirs(setting) for setting in SETTINGS},
    }
    counts = {"exact": min(together, len(images)), "fast": len(images)}
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if images.is_cuda:
                torch.cuda.synchronize()
            times[key].append((time.perf_counter() - start) / counts.get(key, 1))
    seconds = {key: statistics.median(values) for key, values in times.items()}
    best = min((seconds[f"captum {setting}"], setting) for setting in SETTINGS)
    print(f"\n{name}: largest difference from captum {difference:.1e}")
    for key, value in seconds.items():
        ratios = f"{best[0] / value:6.2f}x best, {seconds['captum 1'] / value:6.2f}x default"
        print(f"  {key:<18}{value:8.3f} s an image   {ratios}")
    print(f"  bound of the exact mode: {least_products(network, images[:1], window, stride):.2f}x")
    print(f"  captum is best with perturbations_per_eval={best[1]}")

    exact = occlusion_map(network, images, window=window, stride=stride)
    fast = occlusion_map(network, images, window=window, stride=stride, mode="fast")
    ranks = [
        spearmanr(a.cpu().flatten(), b.cpu().flatten()).statistic
        for a, b in zip(exact.values, fast.values, strict=True)
    ]
    actual = (exact.values - fast.values).square().mean((1, 2)).sqrt().mean().item()
    print(f"  fast: rank correlation mean {statistics.mean(ranks):.4f}, lowest {min(ranks):.4f}, {len(images)} images;")
    print(f"        root mean square error {actual:.4f}, stated {fast.error.mean().item():.4f}")


@torch.no_grad()
def least_products(network: nn.Module, image: Tensor, window: int, stride: int) -> float:
    """Products of all windows in whole forward passes, relative to those that depend on the window.

    A NaN in the window reaches exactly the values that depend on it.
    """
    whole = changed = 0.0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal whole, changed
        products = layer.weight[0].numel() * output[0].numel()  # type: ignore[index]
        whole += products * len(output)
        changed += products * output.isnan().float().mean((1, *range(2, output.ndim))).sum().item()

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    for top in range(0, image.shape[2] - window + 1, stride):
        lefts = range(0, image.shape[3] - window + 1, stride)
        occluded = image.repeat(len(lefts), 1, 1, 1)
        for row, left in zip(occluded, lefts, strict=True):
            row[:, top : top + window, left : left + window] = torch.nan
        network(occluded)
    for hook in hooks:
        hook.remove()
    return whole / changed


if __name__ == "__main__":
    main()
