"""Reading of study files, and errors before anything runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_cifar.errors import UsageError
from lightning_cifar.studies.spec import changes, read_study

BASE: dict[str, Any] = {
    "seed_everything": 3,
    "trainer": {"max_epochs": 2},
    "model": {"class_path": "LeNet", "init_args": {"lr": 0.1, "activation": "relu"}},
    "data": {"class_path": "SyntheticDataModule", "init_args": {"augment": ["flip", {"crop": 4}]}},
}


def write(folder: Path, **content: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"base": BASE, **content}, sort_keys=False))
    return path


def test_dotted_and_nested_overrides(tmp_path: Path) -> None:
    study = read_study(
        write(
            tmp_path,
            arms={
                "slow": {"model.lr": 0.01},
                "fast": {"model": {"init_args": {"lr": 1.0}}, "trainer.max_epochs": 1},
                "plain": {"data.augment": []},
                "compiled": {"compile": True},
            },
        )
    )
    slow, fast, plain, compiled = study.arms.values()
    assert compiled["compile"] is True
    assert slow["model"]["init_args"] == {"lr": 0.01, "activation": "relu"}
    assert fast["model"]["init_args"]["lr"] == 1.0
    assert fast["trainer"]["max_epochs"] == 1
    assert slow["trainer"]["max_epochs"] == 2
    assert plain["data"]["init_args"]["augment"] == []
    assert slow["data"]["init_args"]["augment"] == ["flip", {"crop": 4}]
    assert all("seed_everything" not in config for config in study.arms.values())
    assert (study.name, study.baseline, study.mode, study.seeds) == ("study", "slow", "max", (0, 1, 2, 3, 4))
    assert study.overrides["fast"] == {"model.init_args.lr": 1.0, "trainer.max_epochs": 1}


def test_a_new_class_starts_without_the_old_arguments(tmp_path: Path) -> None:
    arms = {"lenet": {"model.lr": 0.2}, "mlp": {"model.class_path": "MLP", "model.lr": 0.3}, "other": {"model": "MLP"}}
    study = read_study(write(tmp_path, arms=arms))
    assert study.arms["mlp"]["model"] == {"class_path": "MLP", "init_args": {"lr": 0.3}}
    assert study.arms["other"]["model"] == {"class_path": "MLP", "init_args": {}}


def test_grid(tmp_path: Path) -> None:
    study = read_study(
        write(tmp_path, grid={"model.lr": [0.1, 0.2], "data.augment": [[], ["flip"]]}, metric="val/loss")
    )
    assert list(study.arms) == [
        "lr=0.1 augment=none",
        "lr=0.1 augment=flip",
        "lr=0.2 augment=none",
        "lr=0.2 augment=flip",
    ]
    assert study.arms["lr=0.2 augment=none"]["data"]["init_args"]["augment"] == []
    assert study.mode == "min"


def test_base_from_files(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    path = tmp_path / "s.yaml"
    path.write_text(
        yaml.safe_dump({"base": ["base.yaml", {"model.lr": 5.0}], "arms": {"a": {"trainer.max_epochs": 9}}})
    )
    assert read_study(path).arms["a"]["model"]["init_args"]["lr"] == 5.0


def test_more_seeds_are_the_same_study(tmp_path: Path) -> None:
    path = write(tmp_path, arms={"a": {"model.lr": 0.01}}, seeds=2)
    two, seven = read_study(path).to_json(), read_study(path, seeds=7).to_json()
    assert two == seven
    assert read_study(write(tmp_path, arms={"a": {"model.lr": 0.02}})).to_json() != two


ARMS = {"a": {"model.lr": 0.01}, "b": {"model.lr": 0.02}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"arms": {**ARMS, "c": {}}}, "arm c is empty"),
        ({"arms": {**ARMS, "c": {"model": {"init_args": {"lr": 0.01}}}}}, "the arms a and c are equal"),
        ({"arms": ARMS, "seeds": 0}, r"seeds \(=0\) must be at least 1"),
        ({"arms": ARMS, "seeds": 10_001}, r"seeds \(=10001\) must be at most 10,000"),
        ({"grid": {"model.lr": [*range(101)], "data.batch_size": [*range(100)]}}, "grid has more than 10,000 arms"),
        ({"arms": ARMS, "seeds": [1, 1]}, "contains a seed twice"),
        ({"arms": ARMS, "seeds": "five"}, r"seeds \(=five\) must be a number"),
        ({"arms": ARMS, "sedes": 2}, "'sedes' is not a key of a study. Did you mean seeds?"),
        ({"arms": ARMS, "baseline": "c"}, r"baseline \(=c\) must be one of the arms a, b"),
        ({"arms": ARMS, "mode": "most"}, "must be max or min"),
        ({"arms": ARMS, "target": "high"}, r"target \(=high\) must be a number"),
        ({"arms": ARMS, "grid": {"model.lr": [1]}}, "add arms .* or a grid"),
        ({}, "add arms .* or a grid"),
        ({"grid": {"model.lr": []}}, "lists of values"),
        ({"arms": {"a": {"modle.lr": 1}}}, "the setting 'modle.lr' does not exist. Did you mean model?"),
        ({"arms": {"../a": {"model.lr": 1}}}, "is not a valid folder name"),
        ({"arms": ARMS, "base": None}, "base is missing"),
        ({"arms": ARMS, "base": {"trainer": {"max_epochs": 1}}}, "must contain model and data"),
        ({"arms": ARMS, "base": "nowhere.yaml"}, "the file .*nowhere.yaml does not exist"),
    ],
)
def test_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_study(write(tmp_path, **content))


def test_refused_files(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with pytest.raises(UsageError, match="does not exist"):
        read_study(path)
    path.write_text("a: [")
    with pytest.raises(UsageError, match="is not valid YAML"):
        read_study(path)
    path.write_text("!!python/object/apply:os.system [touch /tmp/never]")
    with pytest.raises(UsageError, match=r"the tag .* is refused"):
        read_study(path)
    path.write_text("- 1")
    with pytest.raises(UsageError, match="must contain settings by name"):
        read_study(path)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "configs/studies").rglob("*.yaml")), ids=str)
def test_every_shipped_study_reads(path: Path) -> None:
    study = read_study(path)
    assert len(study.arms) >= 5
    assert len(study.seeds) >= 3
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"margin": 0.5},
            r"margin \(=0.5\) does not fit val/accuracy, which has percentage points: write it like 0.5 p",
        ),
        (
            {"margin": "0.5 points", "metric": "val/loss"},
            "does not fit val/loss, which has no unit: write it like 0.02",
        ),
        ({"margin": "-1 points"}, "must be a positive difference, such as 0.5 points"),
        ({"margin": "120 points"}, "must be below 100 points"),
        ({"margin": "half"}, "must be a positive difference"),
        ({"margin": "1e points"}, "must be a positive difference"),
        ({"compare": "pairs"}, r"compare \(=pairs\) must be baseline or all"),
        ({"looks": 0}, r"looks \(=0\) must be the number of looks"),
    ],
)
def test_rules_that_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_study(write(tmp_path, arms={"a": {"model.lr": 0.2}}, **content))


def test_rules_are_part_of_the_study(tmp_path: Path) -> None:
    """A margin that is declared or changed after the start makes another study."""
    plain, strict = (
        read_study(write(tmp_path, arms={"a": {"model.lr": 0.2}}, **more))
        for more in ({}, {"margin": "0.5 points", "compare": "all", "looks": 2})
    )
    assert (strict.margin, strict.compare, strict.looks) == (0.005, "all", 2)
    assert "margin" not in plain.to_json()
    assert changes(plain.to_json(), strict.to_json()) == (
        "compare was absent and is all; looks was absent and is 2; margin was absent and is 0.005"
    )
