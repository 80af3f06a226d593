"""Malicious files: nothing is executed, and nothing is written outside the folder."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_cifar import cli
from lightning_cifar.checkpoints.reading import CONFIG_KEY, Checkpoint
from lightning_cifar.data import ImageFolderDataModule, sources
from lightning_cifar.data.albumentations_pipeline import load_pipeline
from lightning_cifar.data.safe_pickle import read_pickle
from lightning_cifar.errors import UsageError
from lightning_cifar.files.images import UnreadableImageError, read_image
from lightning_cifar.models import LeNet

CANARY = "canary"
TOUCH = f"touch {CANARY}"
DATA = {"class_path": "SyntheticDataModule", "init_args": {"num_train": 32, "num_val": 32}}


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


CALLS = {
    "system": lambda: Calls(os.system, TOUCH),
    "popen": lambda: Calls(subprocess.Popen, ["touch", CANARY]),
    "eval": lambda: Calls(builtins.eval, f"open({CANARY!r}, 'w')"),
    "exec": lambda: Calls(builtins.exec, f"open({CANARY!r}, 'w')"),
    "open": lambda: Calls(io.open, CANARY, "w"),
    "mkdir": lambda: Calls(os.mkdir, CANARY),
    "import": lambda: Calls(builtins.__import__, "antigravity"),
    "torch.load": lambda: Calls(torch.load, CANARY),
    "copyfile": lambda: Calls(shutil.copyfile, sys.executable, CANARY),
}
NUMPY = {"fromfile": lambda: Calls(np.fromfile, "x"), "save": lambda: Calls(np.save, CANARY, [1])}
CASES: dict[str, Callable[[], None]] = {}


def case(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(function: Callable[[], None]) -> Callable[[], None]:
        CASES[name] = function
        return function

    return add


def refused(args: list[str]) -> None:
    """Check that the command line refuses the arguments in one line."""
    assert cli.main([*args, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]) == 2


# ---------------------------------------------------------------- pickles of data


def data_pickle(content: bytes) -> None:
    with pytest.raises(ValueError, match="delete it and download again"):
        read_pickle(content, name="batch")


for name, call in {**CALLS, **NUMPY}.items():
    CASES[f"data pickle: {name}"] = lambda call=call: data_pickle(pickle.dumps({"data": call()}, 2))
CASES["data pickle: stack global"] = lambda: data_pickle(
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R."
)
CASES["data pickle: a memo of 64 GB"] = lambda: data_pickle(b"\x80\x02Nr\xff\xff\xff\xff.")
CASES["data pickle: 4 GB claimed"] = lambda: data_pickle(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 32) + b"x.")
CASES["data pickle: a frame without end"] = lambda: data_pickle(b"\x80\x04\x95" + b"\xff" * 8 + b"N.")


# ---------------------------------------------------------------- checkpoints


def checkpoint(content: object = None, **more: object) -> str:
    """Write a complete checkpoint with the given changes."""
    held = {"state_dict": LeNet().state_dict(), "global_step": 0, "epoch": 0, "pytorch-lightning_version": "2.6.6"}
    torch.save({**held, **more} if content is None else content, "evil.ckpt")
    return "evil.ckpt"


def checkpoint_refused(**more: object) -> None:
    path = checkpoint(**more)
    with pytest.raises(UsageError, match=r"evil\.ckpt"):
        Checkpoint.read(Path(path))
    refused(["test", "--ckpt_path", path])


for name, call in CALLS.items():
    CASES[f"checkpoint: {name}"] = lambda call=call: checkpoint_refused(bomb=call())


def with_config(config: object, verb: str = "fit", **more: object) -> None:
    path = checkpoint(**{CONFIG_KEY: config if isinstance(config, str) else yaml.safe_dump(config)}, **more)
    refused([verb, "--ckpt_path", path, "--run_dir", "run"])


@case("checkpoint: a legacy pickle")
def _() -> None:
    Path("evil.ckpt").write_bytes(pickle.dumps({"state_dict": {}, "bomb": Calls(os.system, TOUCH)}, 2))
    refused(["test", "--ckpt_path", "evil.ckpt"])


@case("checkpoint: _instantiator")
def _() -> None:
    hyper = {"_instantiator": "os.system", "_class_path": "os.system", "command": TOUCH}
    with_config({"model": "LeNet", "data": DATA}, "test", hyper_parameters=hyper, state_dict={})


@case("checkpoint: _instantiator, loaded in Python")
def _() -> None:
    hyper = {"_instantiator": f"{__name__}.nothing", "lr": 0.1}
    path = checkpoint(hyper_parameters=hyper)
    with pytest.raises((TypeError, AttributeError, ImportError, ValueError, RuntimeError, pickle.UnpicklingError)):
        LeNet.load_from_checkpoint(path, weights_only=True)


@case("checkpoint: class_path os.system in its own words")
def _() -> None:
    path = checkpoint(class_path="os.system", hyper_parameters={"command": TOUCH})
    refused(["test", "--ckpt_path", path, "--data", "SyntheticDataModule"])


POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", CANARY]}}
for name, config in {
    "model": {"model": POPEN, "data": DATA},
    "data": {"model": "LeNet", "data": POPEN},
    "callback": {"model": "LeNet", "data": DATA, "trainer": {"callbacks": [POPEN]}},
    "logger": {"model": "LeNet", "data": DATA, "trainer": {"logger": POPEN}},
    "plugin": {"model": "LeNet", "data": DATA, "trainer": {"plugins": [POPEN]}},
    "strategy": {"model": "LeNet", "data": DATA, "trainer": {"strategy": POPEN}},
    "profiler": {"model": "LeNet", "data": DATA, "trainer": {"profiler": POPEN}},
    "LambdaCallback": {
        "model": "LeNet",
        "data": DATA,
        "trainer": {
            "callbacks": [
                {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_fit_start": POPEN}}
            ]
        },
    },
    "a value of any type": {
        "model": "LeNet",
        "data": {"class_path": "SyntheticDataModule", "init_args": {"num_train": 32, "augment": [{"crop": POPEN}]}},
    },
    "an extra argument": {
        "model": {"class_path": "LeNet", "dict_kwargs": {"x": POPEN}},
        "data": DATA,
    },
}.items():
    CASES[f"configuration in a checkpoint: {name}"] = lambda config=config: with_config(config)

    def in_a_file(config: object = config) -> None:
        Path("evil.yaml").write_text(yaml.safe_dump(config))
        refused(["fit", "--config", "evil.yaml", "--run_dir", "run"])

    CASES[f"configuration: {name}"] = in_a_file


OUTSIDE = "../outside"
for name, trainer in {
    "ModelCheckpoint": {"callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": OUTSIDE}}]},
    "CSVLogger": {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": OUTSIDE}}},
    "absolute": {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": os.path.abspath(OUTSIDE)}}},
}.items():
    CASES[f"configuration in a checkpoint writes outside: {name}"] = lambda trainer=trainer: with_config(
        {"model": "LeNet", "data": DATA, "trainer": {"max_epochs": 1, **trainer}}
    )

TAGS = {
    "python/object/apply": f"x: !!python/object/apply:os.system ['{TOUCH}']",
    "python/name": "x: !!python/name:os.system",
    "python/module": "x: !!python/module:antigravity",
    "python/object/new": f"x: !!python/object/new:subprocess.Popen [['touch', '{CANARY}']]",
    "own tag": "x: !exec 1",
    "a billion laughs": "a: &a [0,0,0,0,0,0,0,0,0,0]\n"
    + "\n".join(f"{b}: &{b} [*{a}{f',*{a}' * 9}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "contains itself": "x: &x [*x]",
    "nested without end": "x: " + "[" * 5000,
}
for name, text in TAGS.items():

    def tagged(text: str = text) -> None:
        Path("evil.yaml").write_text(text)
        refused(["fit", "--config", "evil.yaml", "--model", "LeNet", "--data", "SyntheticDataModule"])

    CASES[f"YAML: {name}"] = tagged
    CASES[f"YAML in a checkpoint: {name}"] = lambda text=text: with_config(text)

    def pipeline(text: str = text) -> None:
        Path("evil.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"evil\.yaml"):
            load_pipeline("evil.yaml")

    CASES[f"pipeline: {name}"] = pipeline


@case("pipeline: a lambda of albumentations")
def _() -> None:
    Path("evil.yaml").write_text("- Lambda: {image: os.system}")
    with pytest.raises(ValueError, match=r"evil\.yaml"):
        load_pipeline("evil.yaml")


@case("checkpoint: a zip bomb")
def _() -> None:
    with zipfile.ZipFile("evil.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", bytes(100 << 20))
    with pytest.raises(UsageError, match="compressed"):
        Checkpoint.read(Path("evil.ckpt"))


@case("checkpoint: a configuration that is a list")
def _() -> None:
    with_config("[1, 2]")


@case("checkpoint: settings that are no plain values")
def _() -> None:
    path = checkpoint(class_path="LeNet", hyper_parameters={"lr": torch.ones(2), "x": OrderedDict(a=1)})
    refused(["test", "--ckpt_path", path, "--data", "SyntheticDataModule"])


@case("checkpoint: settings that are a tensor")
def _() -> None:
    with_config({"model": "LeNet", "data": DATA}, hyper_parameters=torch.ones(2))


# ---------------------------------------------------------------- archives


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(sources.ARCHIVE, "w:gz") as tar:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    before = sorted(Path("..").rglob("*"))
    with pytest.raises(ValueError, match="delete"):
        sources.read_cifar10(Path())
    assert sorted(Path("..").rglob("*")) == before


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


BATCH = f"{sources.FOLDER}/data_batch_1"
CASES["archive: a path outside"] = lambda: archive((member(f"../{CANARY}"), b"x"), (member(BATCH), b"x"))
CASES["archive: an absolute path"] = lambda: archive((member(os.path.abspath(CANARY)), b"x"), (member(BATCH), b"x"))
CASES["archive: a symbolic link"] = lambda: archive((member(BATCH, tarfile.SYMTYPE, "/etc/passwd"), b""))
CASES["archive: a hard link"] = lambda: archive((member("x"), b"x"), (member(BATCH, tarfile.LNKTYPE, "x"), b""))
CASES["archive: a device"] = lambda: archive((member(BATCH, tarfile.CHRTYPE), b""))
CASES["archive: a pipe"] = lambda: archive((member(BATCH, tarfile.FIFOTYPE), b""))
CASES["archive: a bomb"] = lambda: archive((member(BATCH), bytes(60 << 20)))


# ---------------------------------------------------------------- images


def png(width: int, height: int) -> bytes:
    """Return a PNG that declares a size but contains few pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def image(content: bytes, suffix: str = "png") -> None:
    Path("images/a").mkdir(parents=True)
    Path("images/b").mkdir()
    path = Path(f"images/a/evil.{suffix}")
    path.write_bytes(content)
    for i in range(20):
        Image.new("RGB", (40, 40)).save(f"images/{'ab'[i % 2]}/good-{i}.png")
    with pytest.raises(UnreadableImageError):
        read_image(path, 32, 3, "crop")
    with pytest.raises(ValueError, match=r"evil\."):
        ImageFolderDataModule("images", image_size=32).setup("fit")


CASES["image: a decompression bomb"] = lambda: image(png(50_000, 50_000))
CASES["image: the largest there is"] = lambda: image(png((1 << 31) - 1, (1 << 31) - 1))
CASES["image: just above the limit"] = lambda: image(png(9_500, 9_500))
CASES["image: PostScript"] = lambda: image(f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%{TOUCH})".encode())
CASES["image: a program"] = lambda: image(f"#!/bin/sh\n{TOUCH}\n".encode())


def run_case(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = folder / "here" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    CASES[name]()
    assert not list(folder.rglob(f"*{CANARY}*")), "it was executed"
    assert [path.name for path in folder.iterdir()] == ["here"]
    assert [path.name for path in (folder / "here").iterdir()] == ["inside"], "it wrote outside"


NAMES = sorted(CASES)
HOSTILE = [
    pytest.mark.filterwarnings("ignore:.*treespec.*"),
]


@pytest.mark.parametrize("name", NAMES[::4])
def test_a_quarter_of_the_hostile_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_case(name, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NAMES[::4]])
def test_the_others(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_case(name, tmp_path, monkeypatch)


def test_there_are_enough() -> None:
    assert len(NAMES) >= 50


def test_the_canary_detects_execution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(CALLS["system"]()))
    assert Path(CANARY).exists()
