"""Regenerate all pictures of the documentation, or the named ones.

    make gallery                                                # all: hours, mostly for DilatedNet and the studies
    python docs/gallery.py weights_lenet.gif tensorboard        # some, by the start of their names
    python docs/gallery.py --list

Trainings are stored in runs/gallery, and finished ones are not repeated. CIFAR-10 and MNIST are downloaded into data/
if they are missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lightning_cifar.cli import main as lightning_cifar

PAGES = Path(__file__).parent
RUNS = Path("runs/gallery")
WITHOUT_FILES = ("dropout_toy",)  # uses synthetic data
EIGHT_EPOCHS = "--trainer.max_epochs 8 --model.label_smoothing 0 --model.dropout 0.1"
TRAININGS = {
    "dilated_net": "--config configs/dilated_net.yaml --trainer.precision bf16-mixed --trainer.max_epochs 60 "
    "--test_after_fit true",
    "lenet": "--config configs/lenet.yaml --config configs/callbacks/weight_gif.yaml --config "
    "configs/callbacks/feature_maps.yaml --config configs/callbacks/prediction_grid.yaml --test_after_fit true",
    "batchnorm_mnist": "--config configs/batchnorm_mnist.yaml",
    "dropout_toy": "--config configs/dropout_toy.yaml",
    **{
        f"{network}_{rate}": f"--config configs/{config}.yaml --config configs/callbacks/weight_trajectory.yaml {more} "
        f"--model.lr {rate} --model.schedule constant --model.warmup 0 --data.augment []"
        for network, config, rates, more in (
            ("lenet_surface", "lenet", (0.005, 0.05), "--config configs/callbacks/sharpness.yaml"),
            (
                "batch_norm_surface",
                "dilated_net",
                (0.01, 0.1),
                f"{EIGHT_EPOCHS} --data.num_train 10000 --model.optimizer sgd --model.weight_decay 5e-4",
            ),
            (
                "no_norm_surface",
                "dilated_net",
                (0.0002, 0.001),
                f"{EIGHT_EPOCHS} --data.num_train 5000 --model.batch_norm false --model.optimizer adam "
                "--model.nesterov false --model.weight_decay 0",
            ),
        )
        for rate in rates
    },
}


class Gallery(NamedTuple):
    """The output folder, and options added to each command, for example another data folder or a shorter training."""

    out: Path = PAGES / "pictures"
    fit: Sequence[str] = ()
    study: Sequence[str] = ()
    bench: Sequence[str] = ()
    data: Sequence[str] = ()

    def run(self, *args: str) -> None:
        if code := lightning_cifar(list(args)):
            sys.exit(code)

    def trained(self, name: str) -> Path:
        """Train if needed, and return the run folder."""
        folder = RUNS / name
        if not (folder / "result.json").is_file():
            more = [] if name in WITHOUT_FILES else self.fit
            self.run("fit", *TRAININGS[name].split(), *more, "--run_dir", str(folder))
        return folder

    def studied(self, name: str) -> Path:
        folder = RUNS / "studies" / name
        if not (folder / "results.csv").is_file():
            self.run("study", f"configs/studies/{name}.yaml", "--out", str(folder), *self.study)
        return folder


def of_training(name: str, picture: str, width: int | None = None) -> Callable[[Gallery, str], None]:
    """Copy a picture of a training, optionally resized to a width in pixels."""

    def make(gallery: Gallery, to: str) -> None:
        found = sorted(gallery.trained(name).glob(f"pictures/{picture}"))
        if not found:
            sys.exit(f"{RUNS / name} does not contain pictures/{picture}: the configuration has changed")
        if width is None:
            (gallery.out / to).write_bytes(found[-1].read_bytes())
        else:
            shrunk(Image.open(found[-1]), width).save(gallery.out / to)

    return make


def of_study(name: str) -> Callable[[Gallery, str], None]:
    """Combine the loss and accuracy panels of the report of a study."""

    def make(gallery: Gallery, to: str) -> None:
        folder = gallery.studied(name)
        gallery.run("report", str(folder), "--out", str(folder / "report.html"), "--png")
        panels = [Image.open(folder / f"report-{panel}.png").convert("RGB") for panel in ("val-loss", "val-accuracy")]
        height = max(panel.height for panel in panels)
        sheet = Image.new("RGB", (sum(panel.width for panel in panels), height), "white")
        left = 0
        for panel in panels:
            sheet.paste(panel, (left, 0))
            left += panel.width
        shrunk(sheet, 1120).save(gallery.out / to)

    return make


def of_surface(*trainings: str, directions: str = "pca", **more: object) -> Callable[[Gallery, str], None]:
    """Draw the plane of the trainings, or one below the other a random plane of each."""

    def make(gallery: Gallery, to: str) -> None:
        runs = [str(gallery.trained(name)) for name in trainings]
        options = [word for name, value in more.items() for word in (f"--{name}", str(value))]
        pictures = []
        for group in [runs] if directions == "pca" else [[run] for run in runs]:
            page = RUNS / "surfaces" / f"{to.removesuffix('.png')}_{len(pictures)}.html"
            gallery.run("surface", *group, "--directions", directions, "--out", str(page), *options)
            pictures.append(Image.open(page.with_suffix(".png")).convert("RGB"))
        stacked(pictures).quantize(256, kmeans=1).save(gallery.out / to, optimize=True)

    return make


def sharpness(gallery: Gallery, to: str) -> None:
    pictures = [gallery.trained(name) / "pictures" / "sharpness.png" for name in LENETS]
    stacked([Image.open(path).convert("RGB") for path in pictures]).save(gallery.out / to, optimize=True)


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), "white")
    top = 0
    for each in pictures:
        sheet.paste(each, (0, top))
        top += each.height
    return sheet


def family(gallery: Gallery, to: str) -> None:
    """Draw the tree of a study with a trunk."""
    folder = gallery.studied("when_to_drop")
    gallery.run("report", str(folder), "--out", str(folder / "report.html"), "--png")
    shrunk(Image.open(folder / "report-family.png"), 800).save(gallery.out / to, optimize=True)


def shrunk(picture: Image.Image, width: int) -> Image.Image:
    height = round(picture.height * width / picture.width)
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def regimes(gallery: Gallery, to: str) -> None:
    one = to.removeprefix("regime_").removesuffix(".png")
    gallery.run("regimes", "--out", str(gallery.out), *(["--name", one] if one in REGIMES else []))


def graph(gallery: Gallery, to: str) -> None:
    gallery.run("gradcheck", "--function", "f3", "--draw", str(gallery.out / to))


def conv_bench(gallery: Gallery, to: str) -> None:
    gallery.run("bench", "conv", "--shape", "cifar", "--out", str(gallery.out), *gallery.bench)
    path = gallery.out / to
    shrunk(Image.open(path), 1000).save(path)


def lr_range(gallery: Gallery, to: str) -> None:
    """Draw both pictures of the published range test."""
    path = PAGES.parent / "benchmarks" / "lr_range_reference.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(["--out", str(gallery.out), *gallery.data])


def occlusion(gallery: Gallery, to: str) -> None:
    """Draw four test images that DilatedNet classifies correctly, and four that it does not."""
    import torch

    from lightning_cifar import CIFAR10DataModule, load_trained, occlusion_map, plots

    checkpoint = gallery.trained("dilated_net") / "checkpoints" / "best.ckpt"
    trained = load_trained(checkpoint)
    options = dict(zip(gallery.data[::2], gallery.data[1::2], strict=False))
    data = CIFAR10DataModule(options.get("--root", "data"), verify="--unofficial" not in gallery.data)
    x, y = next(iter(data.loader("test")))
    with torch.no_grad():
        probabilities = trained.model(x).softmax(1)
    predicted = probabilities.argmax(1)
    right, wrong = ((predicted == y).nonzero()[:4, 0], (predicted != y).nonzero()[:4, 0])
    order = [int(i) for pair in zip(right, wrong, strict=False) for i in pair]
    found = occlusion_map(trained.model, x[order])
    shown = plots.to_displayable(x[order].numpy(), trained.mean, trained.std)
    names = trained.class_names
    rows = [
        plots.Occlusion(
            shown[i],
            found.pixels[i].numpy(),
            f"true {names[y[k]]}, predicted {names[predicted[k]]} {probabilities[k].max():.2f}",
            f"map of P({names[predicted[k]]}), {found.clean[i]:.2f} when uncovered",
            bool(predicted[k] != y[k]),
        )
        for i, k in enumerate(order)
    ]
    title = "DilatedNet, CIFAR-10 test images: four right, four wrong (window of 8 x 8 pixels, step 1)"
    figure = plots.draw_occlusion_maps(rows, title=title, label="drop of P(predicted class)", limit=0.5)
    figure.savefig(gallery.out / to, dpi=120)


def microscope(gallery: Gallery, to: str) -> None:
    """Open the microscope page of DilatedNet in Chromium, select a channel, and save a screenshot."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    page = RUNS / "microscope.html"
    gallery.run("microscope", str(gallery.trained("dilated_net")), "--out", str(page))
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1500,1640"):
        options.add_argument(flag)
    with webdriver.Chrome(options=options) as browser:
        browser.get(page.absolute().as_uri())
        WebDriverWait(browser, 60).until(
            lambda _: browser.execute_script("return document.documentElement.dataset.ready")
        )
        browser.execute_script("select({layer: 6, channel: 25, image: 2, window: [14, 9]}); select({target: 9});")
        browser.save_screenshot(str(gallery.out / to))
    shrunk(Image.open(gallery.out / to), 1200).quantize(256, kmeans=1).save(gallery.out / to, optimize=True)


def tensorboard(gallery: Gallery, to: str) -> None:
    """Open the tabs of TensorBoard for a run and a study in Chromium, and save all screenshots."""
    import re
    import subprocess
    import time

    from selenium import webdriver

    folder = RUNS / "tensorboard"
    if not (folder / "runs" / "demo" / "result.json").is_file():
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        overlays = ("weight_histograms", "embedding_projector", "weight_gif", "prediction_grid")
        more = [word for name in overlays for word in ("--config", f"configs/callbacks/{name}.yaml")]
        gallery.run("fit", *DEMO, *more, "--run_dir", str(folder / "runs" / "demo"))
    (folder / "lr.yaml").write_text(LR_STUDY)
    gallery.run("study", str(folder / "lr.yaml"), "--out", str(folder / "runs" / "lr"))  # continues where it stopped
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "runs"), "--port", "0"]
    with (folder / "server.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            while not (found := re.search(r"http://\S+", (folder / "server.log").read_text())):
                time.sleep(1)
            time.sleep(LOADING)
            for tab, (width, height, place) in TABS.items():
                options = webdriver.ChromeOptions()
                for flag in ("--headless=new", "--no-sandbox", "--no-proxy-server", f"--window-size={width},{height}"):
                    options.add_argument(flag)
                with webdriver.Chrome(options=options) as browser:
                    browser.get(found[0] + place)
                    time.sleep(LOADING)  # charts appear one after the other
                    path = gallery.out / f"tensorboard_{tab}.png"
                    browser.save_screenshot(str(path))
                shrunk(Image.open(path), 1000).quantize(96).save(path, optimize=True)
        finally:
            server.terminate()


DEMO = ("--config", "configs/demo.yaml", "--test_after_fit", "true")
LR_STUDY = """
name: lr
seeds: 3
metric: val/accuracy
base:
  trainer: {max_epochs: 6}
  model:
    class_path: LeNet
    init_args: {activation: relu, pooling: max, momentum: 0.9, schedule: cosine, warmup: 0.2}
  data:
    class_path: SyntheticDataModule
    init_args: {num_train: 1500, num_val: 1000, num_test: 500, batch_size: 64, augment: [flip]}
baseline: lr 0.05
arms:
  lr 0.05: {model.lr: 0.05}
  lr 0.1: {model.lr: 0.1}
"""
TABS = {
    "hparams": (1900, 763, "#hparams"),
    "text": (1300, 963, "#text"),
    "graphs": (1200, 783, "#graphs"),
    "timeseries": (1400, 1003, "?tagFilter=%5Eval%2Faccuracy%24#timeseries"),
    "custom_scalars": (1300, 963, "#custom_scalars"),
    "images": (1300, 1003, "#images&tagFilter=filters|predictions"),
    "histograms": (1300, 943, "#histograms"),
    "projector": (1300, 1003, "#projector"),
    "pr_curves": (1300, 943, "#pr_curves"),
}
LOADING = 45  # seconds until the server has read the files, or a tab shows its charts
LENETS = ("lenet_surface_0.005", "lenet_surface_0.05")
REGIMES = ("constant", "step", "exponential", "linear", "cosine", "one-cycle", "triangular", "warm-restarts")
STUDIES = ("lr_regimes", "augmentation", "regularisation", "architectures")
RECIPES: dict[str, Callable[[Gallery, str], None]] = {
    "regimes.png": regimes,
    **{f"regime_{name}.png": regimes for name in REGIMES},
    "graph_f3.png": graph,
    "conv_bench.png": conv_bench,
    "dropout_toy.png": of_training("dropout_toy", "fit_curves_moments.png"),
    "batchnorm_activations.png": of_training("batchnorm_mnist", "activations.png", 708),
    "batchnorm_ridge.png": of_training("batchnorm_mnist", "activations_ridge.png", 756),
    "batchnorm_loss_curves.png": of_training("batchnorm_mnist", "loss_curves.png", 900),
    "weights_lenet.gif": of_training("lenet", "weights.gif"),
    "feature_maps_lenet.png": of_training("lenet", "feature_maps/network.0/image_0/epoch_*.png"),
    "feature_maps_over_training_lenet.png": of_training("lenet", "feature_maps/network.0/image_0/over_training.png"),
    "mistakes_lenet.png": of_training("lenet", "mistakes_test.png"),
    "lr_range_resnet18.png": lr_range,
    "lr_range_zoom_resnet18.png": lr_range,
    "cifar10_samples_train.png": of_training("dilated_net", "samples_train.png"),
    "dilated_net_curves.png": of_training("dilated_net", "loss_curves.png"),
    "dilated_net_confusion.png": of_training("dilated_net", "confusion_test.png"),
    "occlusion_dilated_net.png": occlusion,
    "microscope_dilated_net.png": microscope,
    **{f"tensorboard_{tab}.png": tensorboard for tab in TABS},
    "forks_when_to_drop.png": family,
    "surface_lenet.png": of_surface(*LENETS),
    "surface_lenet_random.png": of_surface(*LENETS, directions="random"),
    "surface_batch_norm.png": of_surface(
        "batch_norm_surface_0.01", "batch_norm_surface_0.1", points=13, num_images=500
    ),
    "surface_no_norm.png": of_surface("no_norm_surface_0.0002", "no_norm_surface_0.001", points=13, num_images=500),
    "sharpness_lenet.png": sharpness,
    **{f"study_{name}.png": of_study(f"tuned/{name}") for name in STUDIES},
}


def remake(names: Sequence[str], gallery: Gallery) -> None:
    """Regenerate the pictures with these names."""
    gallery.out.mkdir(parents=True, exist_ok=True)
    made: set[Callable[[Gallery, str], None]] = set()
    for i, name in enumerate(names, start=1):
        if RECIPES[name] not in made:
            print(f"[{i}/{len(names)}] {name}", flush=True)
            RECIPES[name](gallery, name)
            made |= {RECIPES[name]} & {lr_range, tensorboard}  # which make all of their pictures


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="PICTURE", help="start of names, such as regimes (default: all)")
    parser.add_argument("--list", action="store_true", help="print the names and exit")
    parser.add_argument("--root", default="data", help="folder of the data (default: data)")
    parser.add_argument("--unofficial", action="store_true", help="read a copy without the official checksums")
    options = parser.parse_args(args)
    if options.list:
        print(*RECIPES, sep="\n")
        return
    chosen = [[each for each in RECIPES if each.startswith(name)] for name in options.names or [""]]
    if [] in chosen:
        parser.error(f"unknown picture {options.names[chosen.index([])]}: --list prints the names")
    fit = ["--data.root", options.root] + (["--data.verify", "false"] if options.unofficial else [])
    study = ["--set", f"data.root={options.root}"] + (["--set", "data.verify=false"] if options.unofficial else [])
    data = ["--root", options.root] + (["--unofficial"] if options.unofficial else [])
    remake(list(dict.fromkeys(name for names in chosen for name in names)), Gallery(fit=fit, study=study, data=data))


if __name__ == "__main__":
    main()
