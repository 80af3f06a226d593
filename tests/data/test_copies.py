"""Files with the same content are found across splits."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_cifar.data.copies import find_copies


def test_copies_across_splits(tmp_path: Path) -> None:
    contents = {
        "a": b"one",
        "b": b"two",
        "c": b"one",
        "d": b"one",
        "e": b"six",
        "f": b"two",
        "g": b"",
        "h": b"",
        "i": b"x",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    paths = {name: tmp_path / name for name in [*contents, "pipe", "absent"]}
    splits = {"train": "abcgi", "val": "dh", "test": "ef"}
    files = {split: [paths[name] for name in names] for split, names in splits.items()}
    files["train"] += [paths["pipe"], paths["absent"]]
    files["val"] += [paths["pipe"], paths["absent"]]
    assert find_copies(files) == [(paths["d"], paths["a"]), (paths["f"], paths["b"])]
    assert find_copies({"train": [paths["a"], paths["c"]], "val": []}) == []
