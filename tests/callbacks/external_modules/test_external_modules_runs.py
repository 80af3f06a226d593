"""Users' own data, and uses of a trainer other than a single fit."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_cifar import callbacks

# These write no files and change the training.
NAMES = sorted({*callbacks.__all__} - {"EMA", "SWAWeightAveraging"})
HOME = {"FitCurves": "line", "LossCurves": "forger"}
OF_FIT = {
    "ActivationSnapshots",
    "EmbeddingProjector",
    "FeatureMaps",
    "FitCurves",
    "Microscope",
    "OcclusionMaps",
}  # they look at validation
NO_FILES = {"LayerTable", "NonFiniteGuard", "Throughput", "PredictionTable", "WeightHistograms", "EmbeddingProjector"}
NO_VALIDATION = {"ClassAccuracy", "PredictionGrid"}
OF_STATE = {"ActivationSnapshots", "FeatureMaps", "FitCurves", "LRRangeFinder", "LossCurves", "WeightGIF"}
OF_STATE |= {"Sharpness", "WeightTrajectory"}


def module_for(name: str, kinds: Any, **settings: Any) -> Any:
    module = kinds[HOME.get(name, "sorter")](**settings)
    module.example_input_array = module.samples[:1][0] if HOME.get(name) != "forger" else torch.zeros(1, 4)
    return module


def pictures(run: Any) -> set[str]:
    return {Path(path).stem for path in run.files if path.startswith("pictures/") or path.endswith(".html")}


@pytest.mark.parametrize("name", NAMES)
def test_loaders_without_a_length(name: str, run: Any, kinds: Any) -> None:
    run.use(run.make(name), module_for(name, kinds), "fit", val="stream")
    assert run.error is None, run.error
    assert not run.said
    assert bool(run.files) == (name not in NO_FILES)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, list) for name in sorted({*OF_FIT, *NO_VALIDATION, "SampleGrid", "LossCurves"} - {"EmbeddingProjector"})]
    + [("ClassAccuracy", dict), ("FeatureMaps", dict)],
)
def test_several_validation_loaders(name: str, kind: type, run: Any, kinds: Any) -> None:
    module = module_for(name, kinds)
    loaders = {"near": run.loader(module), "far": run.loader(module)}
    changes = {"val_loss": "realism/dataloader_idx_0"} if name == "LossCurves" else {}
    run.use(run.make(name, **changes), module, "fit", val=loaders if kind is dict else list(loaders.values()))
    assert run.error is None, run.error
    assert not run.said
    assert pictures(run)


def check_without_validation(name: str, reason: str, run: Any, kinds: Any, **settings: Any) -> None:
    run.use(run.make(name), module_for(name, kinds), "fit", **settings)
    if name in OF_FIT:
        assert isinstance(run.error, ValueError)
        assert re.search(reason, str(run.error))
        return
    assert run.error is None, run.error
    if name in NO_VALIDATION:
        assert re.search(f"{name} is disabled: fit ended without a validation", *run.said)
    elif name == "LossCurves":
        assert "found none of" in run.said[0]
    else:
        assert not run.said
    without = {
        "ExactResume",
        "FilterImages",
        "LRRangeFinder",
        "SampleGrid",
        "Sharpness",
        "WeightGIF",
        "WeightTrajectory",
    }
    assert bool(run.files) == (name in without)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_validation_loader(name: str, run: Any, kinds: Any) -> None:
    check_without_validation(name, "the validation loader is missing: add one", run, kinds, val=None)


@pytest.mark.parametrize("name", sorted(OF_FIT | NO_VALIDATION))
def test_with_validation_disabled(name: str, run: Any, kinds: Any) -> None:
    check_without_validation(name, "limit_val_batches is 0: set it to 1 or more", run, kinds, limit_val_batches=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_run_and_other_verbs(name: str, run: Any, kinds: Any) -> None:
    module, watcher = module_for(name, kinds), run.make(name)
    run.use(watcher, module, "fit", fast_dev_run=True)
    assert run.error is None, run.error
    assert not run.files
    trainer = run.make_trainer(watcher, default_root_dir=run.folder)
    for verb in ("validate", "test", "predict"):
        run.go(trainer, module, verb)
    assert run.error is None, run.error
    assert [text for text in run.said if "run validate" not in text] == []
    expected = {
        "ClassAccuracy": {"confusion_val", "confusion_test"},
        "FeatureMaps": {"evaluation"},
        "PredictionGrid": {"predictions_val", "mistakes_val", "predictions_test", "mistakes_test"},
        "PredictionTable": {"predictions"},
        "SampleGrid": {"samples_val", "samples_test"},
    }
    assert pictures(run) == expected.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_a_second_fit_and_copies(name: str, run: Any, kinds: Any) -> None:
    watcher = copy.deepcopy(run.make(name))
    trainer = run.use(watcher, module_for(name, kinds), "fit", max_epochs=1)
    before = run.files
    trainer.fit_loop.max_epochs = 2
    run.go(trainer, run.module)  # goes on
    assert run.error is None, run.error
    assert run.files >= before
    again = pickle.loads(pickle.dumps(watcher))
    run.folder = run.folder.with_name("again")
    run.use(copy.deepcopy(again), module_for(name, kinds), "fit", max_epochs=1)  # a new one
    assert run.error is None, run.error
    assert not run.said
    assert bool(run.files) == bool(before)


@pytest.mark.parametrize("name", NAMES)
def test_two_of_one_kind(name: str, run: Any, kinds: Any) -> None:
    pair = run.make(name), run.make(name)
    if name in OF_STATE:  # Lightning's own word
        with pytest.raises(RuntimeError, match=f"more than one stateful callback of type `{name}`"):
            run.make_trainer(*pair)
        return
    run.use(*pair, module_for(name, kinds), "fit", max_epochs=1)
    assert run.error is None, run.error
    if name in {*NO_VALIDATION, "EmbeddingProjector", "FilterImages", "Microscope", "OcclusionMaps", "SampleGrid"}:
        (said,) = run.said
        assert re.search(f"^{name}: 2 of them overwrite each other's files: (keep one|set a different)", said)
    else:
        assert name in {"ExactResume", *NO_FILES} - {"EmbeddingProjector"}
        assert not run.said


def test_two_with_names_of_their_own(run: Any, kinds: Any) -> None:
    pair = run.make("FilterImages"), run.make("FilterImages", name="again")
    run.use(*pair, module_for("FilterImages", kinds), "fit")
    assert not run.said
    assert pictures(run) == {"filters", "again"}


class ExternalData(LightningDataModule):
    """Has attributes with the names that callbacks read, but other contents."""

    def __init__(self, samples: Any, **attributes: Any) -> None:
        super().__init__()
        self.samples = samples
        for name, value in attributes.items():
            setattr(self, name, value)

    def train_dataloader(self) -> Any:
        return DataLoader(self.samples, batch_size=8)

    val_dataloader = predict_dataloader = train_dataloader


STRANGE = [
    {"mean": 0.5, "std": 0.25, "class_names": {0: "ant", 1: "bee", 2: "cow"}, "file_names": {"a": 1}},
    {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1), "class_names": len, "file_names": len},
    {"mean": "none", "std": len, "class_names": "abc", "file_names": ["only one"]},
]


@pytest.mark.parametrize("attributes", STRANGE, ids=["scalars", "tensors", "nonsense"])
@pytest.mark.parametrize(
    "name", ["ClassAccuracy", "FeatureMaps", "OcclusionMaps", "PredictionGrid", "PredictionTable", "SampleGrid"]
)
def test_a_data_module_that_means_something_else(name: str, attributes: Any, run: Any, kinds: Any) -> None:
    module = module_for(name, kinds)
    data = ExternalData(module.samples, **attributes)
    run.use(run.make(name), module, "predict" if name == "PredictionTable" else "fit", data=data)
    assert run.error is None, run.error
    assert not run.said
    assert pictures(run)
    if name == "ClassAccuracy":
        rows = (run.folder / "class_accuracy_val.csv").read_text().splitlines()[1:]
        names = ["ant", "bee", "cow"] if isinstance(attributes["mean"], float) else ["0", "1", "2"]
        assert [row.split(",")[0] for row in rows] == names


@pytest.mark.parametrize(("channels", "size"), [(1, (24, 40)), (3, (24, 40)), (4, (8, 8))])
@pytest.mark.parametrize(
    "name", ["FeatureMaps", "FilterImages", "Microscope", "OcclusionMaps", "PredictionGrid", "SampleGrid"]
)
def test_images_of_any_shape(name: str, channels: int, size: Any, run: Any, kinds: Any) -> None:
    run.use(run.make(name), module_for(name, kinds, channels=channels, size=size), "fit")
    if name == "Microscope":
        assert run.error is None, run.error
        assert run.files == {"microscope.html"}
    elif channels == 4 and name not in ("FeatureMaps", "FilterImages"):
        assert re.search("1 or 3", "".join([str(run.error or ""), *run.said]))
    else:
        assert run.error is None, run.error
        assert pictures(run)


def test_a_callback_that_gave_up_tries_again_with_another_module(run: Any, kinds: Any) -> None:
    watchers = [run.make(name) for name in ("ClassAccuracy", "PredictionGrid", "SampleGrid", "PredictionTable")]
    for kind in ("line", "line", "sorter"):
        trainer = run.use(*watchers, kinds[kind](), "fit")
        run.go(trainer, run.module, "predict")
    assert len(run.said) == 4
    assert {"confusion_val", "mistakes_val", "samples_val", "predictions"} <= pictures(run)


def test_probabilities_are_not_taken_for_logits(run: Any, kinds: Any) -> None:
    class Sure(kinds["sorter"]):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[0.9, 0.1, 0.0]]).expand(len(x), 3) + 0 * super().forward(x)

    run("PredictionGrid", Sure())
    rows = (run.folder / "mistakes_val.csv").read_text().splitlines()[1:]
    np.testing.assert_allclose([float(row.split(",")[3]) for row in rows], 0.9, atol=1e-5)
    run("OcclusionMaps", Sure())
    assert re.search(r"OcclusionMaps needs logits \(N, K\), and Sure\(images\) returns probabilities", str(run.error))


def test_one_output_and_labels_of_two_classes(run: Any, kinds: Any) -> None:
    class Binary(kinds["sorter"]):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :1]

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.softplus(self(batch[0])).mean()

    run("ActivationSnapshots", Binary())
    assert run.error is None
    run("ClassAccuracy", Binary())
    assert "of 2 or more classes" in run.said[0]
    assert not (run.folder / "confusion_val.csv").exists()


def test_loaders_of_different_classes_and_sizes(run: Any, kinds: Any) -> None:
    class Two(kinds["sorter"]):  # type: ignore[misc]
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
            return self(batch[0])[:, : 3 - dataloader_idx]

    module = Two()
    run.use(run.make("ClassAccuracy"), module, "fit", val=[run.loader(module)] * 2)
    assert run.said == ["ClassAccuracy is disabled: logits of 3 and of 2 classes cannot be counted together."]
    assert not run.files
    batches = [(torch.rand(4, 3, side, side), torch.zeros(4, dtype=torch.long)) for side in (8, 12)]
    module, sizes = kinds["sorter"](), DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    run.use(run.make("PredictionGrid"), module, "fit", val=sizes)
    assert re.search(r"images of \(3, 8, 8\) and \(3, 12, 12\) do not fit on one sheet", run.said[1])
    run.use(run.make("ActivationSnapshots"), module, "fit", val=sizes)
    assert re.search(r"differ in shape, \(3, 8, 8\) and \(3, 12, 12\): .* use 4 samples", str(run.error))


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ({"lr": lambda: 0.1}, None),
        ({"last": torch.zeros(1, requires_grad=True) * 2}, "trains a copy, and Sorter cannot be copied"),
    ],
)
def test_unusual_attributes_of_a_module(inside: Any, message: str | None, run: Any, kinds: Any) -> None:
    module = kinds["sorter"]()
    vars(module).update(inside)
    run("LRRangeFinder", module)
    if message:
        assert re.search(message, str(run.error).splitlines()[0])
    else:
        assert run.error is None


@pytest.mark.parametrize("uses", [True, False])
def test_a_found_rate_is_set_in_hyperparameters_or_reported(uses: bool, run: Any, kinds: Any) -> None:
    class Careful(kinds["sorter"]):  # type: ignore[misc]
        def __init__(self, lr: float = 0.05) -> None:
            super().__init__()
            self.save_hyperparameters()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.hparams.lr if uses else 0.07)

    finder = run.make("LRRangeFinder", apply=True)
    run.use(finder, Careful(), "fit")
    assert run.error is None, run.error
    assert finder.own_lr == 0.05
    assert run.trainer.optimizers[0].param_groups[0]["lr"] == (finder.suggestion.value if uses else 0.07)
    assert [("Careful.configure_optimizers does not use lr" in text) for text in run.said] == [True] * (not uses)


def test_several_training_loaders_are_reported(run: Any, kinds: Any) -> None:
    module = kinds["sorter"]()
    trainer = run.make_trainer(run.make("LRRangeFinder"))
    with pytest.raises(ValueError, match="needs one training loader, but this run has 2"):
        trainer.fit(module, {"a": run.loader(module), "b": run.loader(module)}, run.loader(module))


def test_the_table_of_layers_takes_any_example(run: Any, kinds: Any, capsys: Any) -> None:
    class Pair(kinds["reader"]):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.memory = nn.LSTM(8, 4, batch_first=True)

        def forward(self, tokens: Tensor, scale: float = 1.0) -> Tensor:
            self.memory(self.words(tokens))
            return super().forward(tokens) * scale

    for example in ((torch.zeros(1, 6, dtype=torch.long), 2.0), {"tokens": torch.zeros(1, 6, dtype=torch.long)}):
        module = Pair()
        module.example_input_array = example
        run("LayerTable", module)
        assert run.error is None, run.error
        assert re.search(r"memory +LSTM\(.*\) +6 x 4 +224", capsys.readouterr().out)
    module.example_input_array = (torch.zeros(1, 6),)
    run("LayerTable", module)
    assert "LayerTable cannot call Pair with its example_input_array" in str(run.error)
