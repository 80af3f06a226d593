"""Exported files contain the network and its metadata; a file with other outputs is not written."""

from __future__ import annotations

import copy
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_cifar import cli, models
from lightning_cifar.commands import export
from lightning_cifar.commands.export import command as export_command
from lightning_cifar.commands.export import writing
from lightning_cifar.commands.export.checking import compare, run_on
from lightning_cifar.commands.export.reading import Format, Portable, load_safetensors, open_file
from lightning_cifar.commands.export.writing import write
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.errors import UsageError
from lightning_cifar.files import atomic

pytest.importorskip("safetensors")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

FORMATS: tuple[Format, ...] = ("safetensors", "onnx", "pt2")
MEAN, STD = (0.4, 0.5, 0.6), (0.25, 0.2, 0.3)
NAMES = SyntheticDataModule.class_names

pytestmark = pytest.mark.usefixtures("in_tmp")


class Exported(NamedTuple):
    run: Path
    files: dict[Format, Path]
    said: str
    complained: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A run with a non-default normalization, and its network in all formats."""
    run = tmp_path_factory.mktemp("export") / "run"
    args = [
        *("fit", "--model", "ConvNet", "--model.channels", "[4, 6]", "--model.batch_norm", "true", "--model.lr", "0.1"),
        *("--data", "SyntheticDataModule", "--data.num_train", "600", "--data.num_val", "40", "--data.num_test", "60"),
        *("--data.mean", str(list(MEAN)), "--data.std", str(list(STD)), "--trainer.max_epochs", "2", "--run_dir"),
        *(str(run), "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--test_after_fit", "true"),
    ]
    assert cli.main(args) == 0
    said, complained = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(complained):
        assert cli.main(["export", str(run), "--format", *FORMATS]) == 0
    files = {name: run / f"export/best.{name}" for name in FORMATS}
    return Exported(run, files, said.getvalue(), complained.getvalue())


@pytest.fixture
def run(exported: Exported, tmp_path: Path) -> Path:
    """A copy of the run without the exported files."""
    folder = tmp_path / "run"
    shutil.copytree(exported.run, folder, ignore=shutil.ignore_patterns("export", "pictures"))
    return folder


def pixels_and_batches() -> tuple[Tensor, Tensor]:
    """Test images in [0, 1], and the same images from the run's data module."""
    data = SyntheticDataModule(num_train=600, num_val=40, num_test=60, mean=MEAN, std=STD)
    pixels = torch.from_numpy(data.load("test").images).movedim(-1, 1).float() / 255
    data.setup("test")
    return pixels, torch.cat([images for images, _ in data.test_dataloader()])


def open_elsewhere(format: Format, path: Path) -> Callable[[Tensor], Tensor]:
    """Open it without the package."""
    if format == "onnx":
        session = onnxruntime.InferenceSession(str(path))
        return lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])
    return torch.export.load(path).module() if format == "pt2" else load_safetensors(path)


def error_of(capsys: pytest.CaptureFixture[str], *args: object, code: int = 2) -> str:
    """Return the one-line error message; no file may be written."""
    capsys.readouterr()
    folder = next((Path(str(word)) for word in args if Path(str(word)).is_dir()), Path())
    before = sorted(folder.rglob("*"))
    assert cli.main(["export", *map(str, args)]) == code
    assert sorted(folder.rglob("*")) == before
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


# ------------------------------------------------------------ what is written


@pytest.mark.parametrize("format", FORMATS)
def test_it_predicts_what_the_network_does(exported: Exported, format: Format) -> None:
    network = models.ConvNet.load_from_checkpoint(
        exported.run / "checkpoints/best.ckpt", map_location="cpu", weights_only=True
    ).eval()
    pixels, batch = pixels_and_batches()
    opened = open_elsewhere(format, exported.files[format])
    with torch.no_grad():
        expected, given = network(batch), opened(pixels)
        one, seven = opened(pixels[:1]), opened(pixels[1:8])
    assert len(expected.argmax(1).unique()) > 2, "a network that always says the same would agree with anything"
    assert torch.equal(given.argmax(1), expected.argmax(1))
    assert torch.allclose(given, expected, atol=1e-4)
    assert torch.allclose(torch.cat([one, seven]), expected[:8], atol=1e-4)


def facts_in(format: Format, path: Path) -> dict[str, Any]:
    """Read without this package."""
    if format == "pt2":
        extra = {"metadata.json": ""}
        torch.export.load(path, extra_files=extra)
        facts: dict[str, Any] = json.loads(extra["metadata.json"])
        return facts
    if format == "onnx":
        texts = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    else:
        content = path.read_bytes()  # the header: its length, then JSON
        texts = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return {name: json.loads(text) for name, text in texts.items()}


@pytest.mark.parametrize("format", FORMATS)
def test_the_metadata_of_a_file(exported: Exported, format: Format) -> None:
    facts = facts_in(format, exported.files[format])
    assert facts["class_names"] == list(NAMES)
    assert (tuple(facts["mean"]), tuple(facts["std"])) == (MEAN, STD)
    assert (facts["in_channels"], facts["image_size"], facts["model"]) == (3, 32, "ConvNet")
    assert facts["hyper_parameters"]["channels"] == [4, 6]
    assert facts["input"].startswith("images: float32 (N, 3, 32, 32), RGB, values in [0, 1]")
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["resize"].startswith("the largest square")
    result = json.loads((exported.run / "result.json").read_text())
    assert facts["accuracy"] == {
        "val/accuracy": pytest.approx(result["best"], abs=1e-5),
        "test/accuracy": pytest.approx(result["metrics"]["test/accuracy"], abs=1e-5),
    }


@pytest.mark.parametrize("format", FORMATS)
def test_no_folder_of_this_machine_is_inside(exported: Exported, format: Format) -> None:
    content = exported.files[format].read_bytes()
    for folder in (Path(torch.__file__).parents[1], Path(export.__file__).parents[1], exported.run.parent):
        assert str(folder).encode() not in content


def test_the_printed_lines(exported: Exported) -> None:
    assert exported.complained == "", "the exporters' own chatter is of no use to anybody"
    lines = exported.said.splitlines()
    assert lines[0].startswith(f"{exported.run}/checkpoints/best.ckpt: ConvNet after ")
    accuracy = json.loads((exported.run / "result.json").read_text())["metrics"]["test/accuracy"]
    for format, path in exported.files.items():
        (i,) = (i for i, line in enumerate(lines) if line.startswith(f"{format}: {path}, "))
        assert "on all 60 test images: 60 of 60 predictions agree" in lines[i + 1]
        assert lines[i + 1].endswith(f"accuracy {100 * accuracy:.2f} %")
        assert str(path) in lines[i + 2]
    assert {path.name for path in (exported.run / "export").iterdir()} == {f"best.{name}" for name in FORMATS}


# ------------------------------------------------------------ every network


def portable(model: models.Classifier, **facts: object) -> Portable:
    known = {
        "image_size": model.image_size,
        "in_channels": model.in_channels,
        "model": type(model).__name__,
        "hyper_parameters": dict(model.hparams),
    }
    shape = {name: [0.4] * model.in_channels for name in ("mean", "std")}
    names = [f"class {k}" for k in range(model.num_classes)]
    known |= {**shape, "class_names": names}
    return Portable(model, class_names=names, **shape, facts={**known, **facts})


GREY = {"in_channels": 1, "image_size": 28, "num_classes": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "LeNet": ("LeNet", {"dropout": 0.3}),
    "LeNet grey": ("LeNet", {**GREY, "activation": "tanh", "pooling": "average"}),
    "LeNet by hand": ("LeNet", {"layers": "hand_made"}),
    "LeNet by hand, average": ("LeNet", {"layers": "hand_made", "pooling": "average"}),
    "LinearClassifier": ("LinearClassifier", GREY),
    "TwoLayerNet": ("TwoLayerNet", {"hidden": 8, "weight_scale": 0.1}),
    "MLP": ("MLP", {"batch_norm": True, "activation": "gelu", "dropout": 0.2}),
    "ConvNet": ("ConvNet", {"batch_norm": True, "flat_norm": True, "pooling": ["max", "average"], "dropout": 0.2}),
    "DilatedNet 187k": ("DilatedNet", {}),
    "DilatedNet 191k": ("DilatedNet", {"variant": "191k"}),
    "ResNetCIFAR": ("ResNetCIFAR", {"stochastic_depth": 0.2}),
    "SpeedNet": ("SpeedNet", {"widths": [8, 8, 8]}),
    "PretrainedSqueezeNet": ("PretrainedSqueezeNet", {"weights": None, "input_size": 40}),
    "PretrainedResNet, smaller": ("PretrainedResNet", {"weights": None, "input_size": 32, "image_size": 48}),
}
TOO_BIG = {"PretrainedVGG", "PretrainedAlexNet", "PretrainedInception"}  # 100 to 500 MB; they share Transfer's code


def test_every_classifier_can_be_exported() -> None:
    known = {name: getattr(models, name) for name in models.__all__}
    names = {name for name, kind in known.items() if issubclass(kind, models.Classifier)} - {"Classifier"}
    assert {name for name, _ in CASES.values()} | TOO_BIG == names


@pytest.mark.parametrize("case", CASES)
def test_every_classifier(case: str, tmp_path: Path) -> None:
    name, settings = CASES[case]
    torch.manual_seed(0)
    model = getattr(models, name)(**settings).eval()
    for buffer in (b for n, b in model.named_buffers() if n.endswith("running_mean")):
        buffer.normal_(std=0.1)  # as after training
    network = portable(model)
    images = torch.rand(8, model.in_channels, model.image_size, model.image_size)
    with torch.no_grad():
        expected = model((images - 0.4) / 0.4)
    assert float(expected.std(0).max()) > 0, "it looks at the image"
    for format in ("safetensors", "pt2"):
        path = tmp_path / f"network.{format}"
        path.write_bytes(write(format, network))
        given = run_on(open_file(format, path), images)
        assert torch.allclose(given, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert "forward" not in vars(next(iter(model.network.children()))), "the network itself is left as it was"


def test_hand_made_layers_as_onnx(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = portable(models.LinearClassifier(**GREY, weight_scale=0.1))
    images = torch.rand(5, 1, 28, 28)
    path = tmp_path / "network.onnx"
    path.write_bytes(write("onnx", network))
    assert torch.allclose(run_on(open_file("onnx", path), images), run_on(network, images), atol=1e-5)


class Branching(models.LeNet):
    """Cannot be traced: the computation depends on the values."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if float(logits.detach().sum()) > 0 else -logits


def test_a_network_that_cannot_be_traced_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = portable(Branching())
    for format in ("pt2", "onnx"):
        with pytest.raises(UsageError, match=f"Branching cannot be written as {format}.*safetensors supports every"):
            write(format, network)
    assert capsys.readouterr() == ("", ""), "torch prints the whole graph"
    path = tmp_path / "network.safetensors"
    path.write_bytes(write("safetensors", network))
    with pytest.raises(UsageError, match="contains Branching, which is not a classifier of this package"):
        load_safetensors(path)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_safetensors(path, Branching)(images), network(images))


# ------------------------------------------------------------ the check


def test_a_file_that_computes_something_else_is_not_written(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_another_bias(network: Portable) -> None:
        with torch.no_grad():
            next(p for n, p in network.named_parameters() if n.endswith("output.bias"))[3] += 30

    def with_another_std(network: Portable) -> None:
        network.std *= 2

    def nothing(network: Portable) -> None:
        pass

    def stamp_out(format: Format, content: bytes) -> bytes:
        if format != "safetensors":
            return content
        values = np.frombuffer(content[-4000:], np.float32)
        return content[:-4000] + (values + 1).astype(np.float32).tobytes()

    for change, formats in ((with_another_bias, FORMATS), (with_another_std, ("pt2",)), (nothing, ("safetensors",))):
        for format in formats:
            whole = change is not nothing

            def spoilt(format: Format, network: Portable, change: Any = change, whole: bool = whole) -> bytes:
                other = copy.deepcopy(network)
                change(other)
                return write(format, other) if whole else stamp_out(format, write(format, other))

            with monkeypatch.context() as patch:
                patch.setattr(writing, "write", spoilt)
                said = error_of(capsys, run, "--format", format, code=1)
            assert f"export/best.{format} is not written: in " in said
            assert "predictions differ from those of the network, and logits by up to" in said


def test_an_existing_file_remains_if_the_new_one_is_not_written(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run / "export/best.pt2"
    path.parent.mkdir()
    path.write_text("of before")
    assert f"{path} exists: pass another --out, or --overwrite" in error_of(capsys, run, "--format", "pt2")
    monkeypatch.setattr(writing, "write", lambda *_: b"no archive")
    assert "torch cannot run it" in error_of(capsys, run, "--format", "pt2", "--overwrite", code=1)

    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(28, f"could not write {path}: No space left on device")

    monkeypatch.setattr(atomic, "write_atomically", full)
    assert f"could not write {path}: No space" in error_of(capsys, run, "--format", "pt2", "--overwrite")
    assert path.read_text() == "of before"
    monkeypatch.undo()
    assert cli.main(["export", str(run), "--format", "pt2", "--overwrite"]) == 0
    assert facts_in("pt2", path)["model"] == "ConvNet"


def test_a_batch_of_one_is_tried_too() -> None:
    def for_many(images: Tensor) -> Tensor:
        if len(images) == 1:
            raise ValueError("a batch of one")
        return images.flatten(1)

    with pytest.raises(ValueError, match="a batch of one"):
        run_on(for_many, torch.zeros(250, 1, 2, 2))
    assert len(run_on(lambda images: images.flatten(1), torch.zeros(250, 1, 2, 2))) == 250


def test_equal_outputs() -> None:
    expected = torch.tensor([[1.0, 9.0, 0.0], [5.0, 5.00001, 0.0], [10.0, 0.0, 0.0]])
    near = expected.clone()
    near[1] = torch.tensor([5.00001, 5.0, 0.0])
    found = compare(expected, near)
    assert (found.total, found.agree, found.ties, found.equal) == (3, 2, 1, True)
    for row, values in ((0, [9.0, 1.0, 0.0]), (1, [5.0, 5.02, 0.0]), (2, [float("nan"), 0.0, 0.0])):
        other = expected.clone()
        other[row] = torch.tensor(values)
        assert not compare(expected, other).equal
    small = expected * 1e-6
    assert not compare(small, small.flip(1)).equal, "what rounding explains is measured by the logits"
    with pytest.raises(ValueError, match=r"the output has the shape \(2, 3\), not \(3, 3\)"):
        compare(expected, expected[:2])


def test_without_the_data_images_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = models.LeNet(in_channels=1, image_size=28)
    content = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "class_path": "lightning_cifar.models.lenet.LeNet",
        "lightning_cifar_config": "data: {class_path: lightning_cifar.data.MNISTDataModule, init_args: {root: nowhere, "
        "download: true}}",
    }
    torch.save(content, tmp_path / "grey.ckpt")
    assert cli.main(["export", str(tmp_path / "grey.ckpt"), "--format", "pt2", "--check", "20"]) == 0
    said = capsys.readouterr().out
    assert "note: test images are not available (" in said
    assert "on 20 random images: 20 of 20 predictions agree" in said
    assert "(N, 1, 28, 28), values in [0, 1]" in said
    assert not Path("nowhere").exists()
    assert facts_in("pt2", tmp_path / "export/grey.pt2")["accuracy"] == {}


# ------------------------------------------------------------ what is refused


@pytest.mark.parametrize("name", ["LeNet", "LinearClassifier"])
@pytest.mark.parametrize("size", [16, 40])
def test_images_of_another_size(name: str, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = getattr(models, name)(image_size=size)
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    content |= {"class_path": name, "SyntheticDataModule": {}}  # of 32 pixels
    torch.save(content, tmp_path / "a.ckpt")
    message = error_of(capsys, tmp_path / "a.ckpt", "--format", "safetensors", "--check", "8")
    assert "a.ckpt: the network does not accept the images of its data: " in message


def test_wrong_options_are_rejected_without_importing_torch(exported: Exported) -> None:
    run = str(exported.run)
    mistakes = [
        [],
        [run],
        ["--format", "onnx"],
        ["nowhere", "--format", "onnx"],
        [run, "--format", "onxx"],
        [run, "--format", "onnx"],  # it is there
        [run, "--formt", "onnx"],
    ]
    code = (
        "import sys; from lightning_cifar.cli import main; "
        f"assert [main(['export', *args]) for args in {mistakes!r}] == [2] * {len(mistakes)}; "
        "print({'torch', 'lightning', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert len(done.stderr.splitlines()) == len(mistakes)


def test_wrong_options(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link.onnx").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for args, said in (
        ((run,), "--format is missing: pass one or several of safetensors"),
        (("--format", "pt2", "onnx"), "RUN is missing: pass the folder of a run"),
        ((run, "--format", "onxx"), "--format (=onxx) must be one of safetensors, onnx, pt2. Did you mean onnx?"),
        ((run, "--format", "pt2", "--chekc", 3), "there is no option --chekc. Did you mean --check?"),
        ((run, "--format", "pt2", "--check", 0), "argument --check: '0' must be a whole number, at least 1"),
        ((run, run, "--format", "pt2"), "are several runs: export one at a time"),
        (("nowhere", "--format", "pt2"), "there is no checkpoint nowhere"),
        ((tmp_path / "empty", "--format", "pt2"), "has no checkpoints/best.ckpt or checkpoints/last.ckpt"),
        ((tmp_path, "--format", "pt2"), f"pass one run, {run}"),
        ((run, "--format", "pt2", "--out", "a.onnx"), "--out (=a.onnx) must end in .pt2"),
        ((run, "--format", "pt2", "--out", run / "config.yaml/a.pt2"), "cannot be written"),
        ((run, "--format", "onnx", "--out", tmp_path / "link.onnx"), "exists: pass another --out, or --overwrite"),
    ):
        assert said in error_of(capsys, *args)


def test_which_checkpoint_is_taken(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best, last = run / "checkpoints/best.ckpt", run / "checkpoints/last.ckpt"
    assert cli.main(["export", "--format", "safetensors", str(run), "--out", str(tmp_path)]) == 0, "in any order"
    assert (tmp_path / "best.safetensors").is_file()
    best.write_bytes(best.read_bytes()[:5000])
    said = error_of(capsys, run, "--format", "safetensors")
    assert "best.ckpt is damaged" in said
    assert "Undamaged in its folder: last.ckpt" in said
    best.unlink()
    capsys.readouterr()
    assert cli.main(["export", str(run), "--format", "safetensors"]) == 0
    assert capsys.readouterr().out.startswith(f"{last}: ConvNet")
    facts = facts_in("safetensors", run / "export/last.safetensors")
    assert facts["checkpoint"] == "last.ckpt"
    assert "test/accuracy" not in facts["accuracy"], "it is the best one that was tested"


def test_checkpoints_of_other_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    member = {"class_path": "LeNet", "init_args": {}}
    several = models.SideBySide({"plain": member, "other": member})
    content = {
        "state_dict": several.state_dict(),
        "hyper_parameters": dict(several.hparams),
        "class_path": "lightning_cifar.models.side_by_side.module.SideBySide",
    }
    torch.save(content, tmp_path / "several.ckpt")
    said = error_of(capsys, tmp_path / "several.ckpt", "--format", "pt2")
    assert "contains 2 networks (plain, other), but a file can contain one: train only this network" in said
    torch.save({**content, "class_path": "lightning_cifar.models.MLPRegressor"}, tmp_path / "numbers.ckpt")
    assert "contains MLPRegressor, which does not classify" in error_of(
        capsys, tmp_path / "numbers.ckpt", "--format", "pt2"
    )


def test_missing_packages(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    find = export_command.find_spec
    for absent, format in (("onnxscript", "onnx"), ("safetensors", "safetensors")):
        monkeypatch.setattr(
            export_command, "find_spec", lambda name, absent=absent: None if name == absent else find(name)
        )
        said = error_of(capsys, run, "--format", format)
        assert f"--format {format} needs {absent}: pip install 'lightning-cifar[export]'" in said
    monkeypatch.setattr(export_command, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    monkeypatch.setattr(writing, "write", lambda *_: b"as it came")
    capsys.readouterr()
    assert cli.main(["export", str(run), "--format", "onnx"]) == 0
    assert "not checked: pip install onnxruntime" in capsys.readouterr().out
    assert (run / "export/best.onnx").read_bytes() == b"as it came"


# ------------------------------------------------------------ out of the file alone


def rewritten(path: Path, to: Path, **changes: object) -> Path:
    """A safetensors file with other metadata."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as file:
        texts = dict(file.metadata())
    texts |= {name: json.dumps(value) for name, value in changes.items()}
    save_file(load_file(path), to, {name: text for name, text in texts.items() if text != "null"})
    return to


def test_a_network_out_of_its_safetensors_file(exported: Exported) -> None:
    network = load_safetensors(str(exported.files["safetensors"]))
    assert network.class_names == NAMES
    assert isinstance(network.classifier, models.ConvNet)
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network.facts["hyper_parameters"]["channels"] == [4, 6]


def test_safetensors_files_that_cannot_be_used(exported: Exported, tmp_path: Path) -> None:
    good, to = exported.files["safetensors"], tmp_path / "a.safetensors"
    content = good.read_bytes()
    for bad in (b"", b"no file of weights", content[:-100], content[:40] + b"\0" * 40 + content[80:]):
        to.write_bytes(bad)
        with pytest.raises(UsageError, match="not a readable safetensors file, or is damaged"):
            load_safetensors(to)
    for changes, said in (
        ({"mean": None}, "was not written by lightning-cifar export: it does not state mean"),
        ({"model": "ConvNett"}, "contains ConvNett, which is not a classifier of this package. Did you mean ConvNet"),
        ({"model": "SideBySide"}, "contains SideBySide, which is not a classifier"),
        ({"model": "__builtins__"}, "which is not a classifier"),
        ({"hyper_parameters": {"channels": [7]}}, "do not fit ConvNet: "),
        ({"hyper_parameters": {"width": 7}}, "does not fit ConvNet of this version"),
    ):
        with pytest.raises(UsageError, match=said):
            load_safetensors(rewritten(good, to, **changes))
    with pytest.raises(OSError, match="nowhere"):
        load_safetensors(tmp_path / "nowhere")


def test_nothing_that_a_safetensors_file_names_is_imported_or_downloaded(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spy.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = rewritten(exported.files["safetensors"], tmp_path / "a.safetensors", class_path="spy.Net")
    assert load_safetensors(path).class_names == NAMES
    network = models.PretrainedSqueezeNet(weights=None, input_size=40)
    asking = {**network.hparams, "weights": "default"}
    path.write_bytes(write("safetensors", portable(network, hyper_parameters=asking)))
    assert isinstance(load_safetensors(path).classifier, models.PretrainedSqueezeNet)
