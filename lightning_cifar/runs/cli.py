"""A run is a folder: config.yaml, metrics.csv, TensorBoard events, checkpoints, pictures, tables and result.json.

The folder appears when everything that can be refused was accepted, and belongs to one run for ever.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_cifar import artifacts, callbacks, data, models
from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
from lightning_cifar.checkpoints.reading import progress_of, read_checkpoint, with_checkpoint_config
from lightning_cifar.checkpoints.trained import trained_with
from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.lock import FolderLock
from lightning_cifar.runs.default_callbacks import default_callbacks
from lightning_cifar.runs.disk_full import is_full, no_space, silent_writers
from lightning_cifar.runs.expected_warnings import expected_warnings_ignored
from lightning_cifar.runs.parser import Parser
from lightning_cifar.runs.progress_lines import FewSteps
from lightning_cifar.runs.record import RunRecord
from lightning_cifar.runs.resume import can_resume, remove_parts, with_resume
from lightning_cifar.runs.trainer_settings import check_goes_on, check_trainer

RUN_DIR_VARIABLE = "LIGHTNING_CIFAR_RUN_DIR"  # tells the processes that a strategy starts which folder it is


class RunCLI(LightningCLI):
    """LightningCLI with our parser, run folders, and checkpoints that bring their own configuration."""

    resumes: Path | None = None
    lock: FolderLock | None = None
    made: list[Path]  # folders that this run made, the outermost first
    record: RunRecord | None = None
    folder_option = "--run_dir"

    @classmethod
    def start(cls, words: list[str]) -> None:
        """Parse and run a command line."""
        started_by_a_run = RUN_DIR_VARIABLE in os.environ
        cls.made, cls.record = [], None
        try:
            with expected_warnings_ignored(), silent_writers():
                words, cls.resumes = with_resume(words)
                cls._run(words)
        except SystemExit as stop:
            if not isinstance(stop.__context__, KeyboardInterrupt):
                raise
            # Lightning has put the training away in order, and would leave with 1.
            folder = Path(os.environ.get(RUN_DIR_VARIABLE, ""))
            raise KeyboardInterrupt(
                f"go on with: lightning-cifar fit --resume {folder}" if can_resume(folder) else ""
            ) from stop
        except Exception as error:
            cls._leave_nothing()
            if is_full(error) and RUN_DIR_VARIABLE in os.environ:
                raise no_space(Path(os.environ[RUN_DIR_VARIABLE]), resumes=cls is RunCLI) from error
            raise
        finally:
            cls.resumes = None
            if cls.lock is not None:
                cls.lock.release()
                cls.lock = None
            if not started_by_a_run:
                os.environ.pop(RUN_DIR_VARIABLE, None)

    @classmethod
    def _leave_nothing(cls) -> None:
        """Remove the folder of a run that broke before it began: a callback found its layer missing, say."""
        if cls.record is not None and not cls.record.begun and cls.made:
            shutil.rmtree(cls.made.pop(), ignore_errors=True)
            with suppress(OSError):  # another run is in there
                while cls.made:
                    cls.made.pop().rmdir()

    @classmethod
    def _run(cls, words: list[str]) -> None:
        cls(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            parser_class=Parser,
            trainer_defaults={"max_epochs": 10, "log_every_n_steps": 10, "num_sanity_val_steps": 0},
            args=with_checkpoint_config(words),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of this run; it must not exist. Default: runs/ with the model's name and the time.",
        )
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="After fit, evaluate the best checkpoint (by its accuracy, or else its loss, in validation) once on "
            "the test set.",
        )
        # A link of which one end has no such attribute or argument (numbers instead of images, say) is passed over.
        for name in ("num_classes", "in_channels", "image_size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # A checkpoint is data: nothing in it is executed.
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    def _parse_ckpt_path(self) -> None:
        """Lightning's version lets the checkpoint's values beat the explicit flags; see with_checkpoint_config."""

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise UsageError(f"seed_everything (={seed}) must be at least 0 and below 4294967296.")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Refuse settings that cannot work, and a checkpoint of another class."""
        check_trainer(vars(self._get(self.config, "trainer")))
        path = self._get(self.config, "ckpt_path")
        if path and Path(path).is_file():
            content = read_checkpoint(Path(path))
            held, wanted = content.get("class_path"), self._get(self.config, "model")["class_path"]
            self._check_optimizer(Path(path), content)
            if held and held.rsplit(".", 1)[-1] != wanted.rsplit(".", 1)[-1]:
                held, wanted = (name.rsplit(".", 1)[-1] for name in (held, wanted))
                raise UsageError(f"{path} holds {held}, not {wanted}: leave --model out, or choose another checkpoint.")
            if self.subcommand == "fit":
                check_goes_on(vars(self._get(self.config, "trainer")), progress_of(content))
            self._show_as_trained(Path(path), content)

    def _show_as_trained(self, path: Path, content: Mapping[str, Any]) -> None:
        """Bring one's own images to the size and normalisation of the training, and give outputs their names."""
        section = self._get(self.config, "data")
        if self.subcommand == "fit" or section["class_path"].rsplit(".", 1)[-1] != "ImageFolderDataModule":
            return
        source, settings = trained_with(path, content, []), section["init_args"]
        for name in ("image_size", "in_channels", "mean", "std"):
            if settings[name] is None:
                value = getattr(source, name)
                settings[name] = list(value) if isinstance(value, tuple) else value
        if settings["class_names"] == "folders":
            settings["class_names"] = list(source.class_names)

    def _check_optimizer(self, path: Path, content: Mapping[str, Any]) -> None:
        """Another optimizer cannot go on from this one's state."""
        held = content.get("hyper_parameters", {})
        settings = self._get(self.config, "model").get("init_args", {})
        for name in ("optimizer", "decay_norm_and_bias") if self.subcommand == "fit" else ():
            if name in held and settings.get(name, held[name]) != held[name]:
                raise UsageError(
                    f"{path} was trained with {name}={held[name]}, and its state does not fit {settings[name]}: "
                    f"leave --model.{name} out, or start without --ckpt_path."
                )

    def after_instantiate_classes(self) -> None:
        """Refuse data of another kind, and a checkpoint of other layers, before anything is written."""
        model, datamodule = type(self.model).__name__, type(self.datamodule).__name__
        if isinstance(self.model, models.Classifier) and isinstance(self.datamodule, data.NoisyLineDataModule):
            raise UsageError(
                f"{model} classifies images, and {datamodule} has none: choose MLPRegressor or other data."
            )
        if isinstance(self.model, models.Regressor) and isinstance(self.datamodule, data.ImageDataModule):
            raise UsageError(f"{model} fits numbers, and {datamodule} has images: choose a classifier or other data.")
        path = self._get(self.config, "ckpt_path")
        if path and Path(path).is_file():
            content = read_checkpoint(Path(path))
            if isinstance(self.datamodule, data.ImageFolderDataModule) and "ImageFolderDataModule" in content:
                self.datamodule.load_state_dict(content["ImageFolderDataModule"])  # refuses other classes
            try:
                self.model.load_state_dict(content["state_dict"])
            except RuntimeError as error:
                detail = one_line(str(error).split("\n", 1)[-1])[:160]
                raise UsageError(
                    f"{path} does not fit {type(self.model).__name__} as configured: {detail} ..."
                ) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        assert self.subcommand is not None
        self.run_dir = self._choose_run_dir()
        config = self._get(self.config_init, "trainer")
        given: list[Callback] = config["callbacks"] or []
        if isinstance(given, Callback):
            given = [given]
        kinds = tuple(type(callback) for callback in given)
        chosen = default_callbacks(self.model, self.datamodule, self.subcommand, config, self.run_dir / "checkpoints")
        defaults = (callback for callback in chosen if not isinstance(callback, kinds))
        config["callbacks"] = [*given, *defaults]
        # First: what the others do at the start of an epoch comes after the state that is saved there.
        config["callbacks"].sort(key=lambda callback: not isinstance(callback, callbacks.ExactResume))
        type(self).record = RunRecord(self.subcommand, self._config_text())
        config["callbacks"].append(type(self).record)
        if type(self) is RunCLI and self.subcommand == "fit":  # those of a study know what they do
            config["callbacks"].append(FewSteps())
        if config["logger"] in (None, True):
            folder = str(self.run_dir)
            # TensorBoard hides what a broken run logged after the point from which it goes on.
            path = self._get(self.config, "ckpt_path")
            purge = None if self.resumes is None else read_checkpoint(Path(path))["global_step"]
            config["logger"] = [TensorBoardLogger(folder, "", "", purge_step=purge), CSVLogger(folder, "", "")]
        if config["enable_model_summary"] is None:
            config["enable_model_summary"] = False  # the layer table takes its place
        config["default_root_dir"] = str(self.run_dir)
        plugins = config["plugins"] or []
        config["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), VerifiedCheckpointIO()]
        return pl.Trainer(**config)

    def before_fit(self) -> None:
        self._claim_run_dir("fit")

    def before_validate(self) -> None:
        self._claim_run_dir("validate")

    def before_test(self) -> None:
        self._claim_run_dir("test")

    def before_predict(self) -> None:
        self._claim_run_dir("predict")

    def predict(self, **kwargs: Any) -> None:
        """Predict the test samples into a table: of classes and probabilities, or of the values fitted."""
        if any(isinstance(callback, callbacks.PredictionTable) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            self.trainer.predict(**{**kwargs, "return_predictions": False})
            return
        batches = self.trainer.predict(**kwargs)
        assert batches is not None
        outputs = torch.cat([batch for batch in batches if isinstance(batch, torch.Tensor)])
        if isinstance(self.model, models.Classifier):
            self._save_classes(outputs)
        else:
            header = ["sample", *(f"value_{i}" for i in range(outputs.shape[1]))]
            rows = ([i, *(f"{value:.6g}" for value in values)] for i, values in enumerate(outputs.tolist()))
            path = artifacts.save_table(self.trainer, "predictions", header, rows)
            if path:
                print(f"predictions of {len(outputs)} samples: {path}")

    def _save_classes(self, probabilities: torch.Tensor) -> None:
        names = self.datamodule.class_names
        top, predicted = probabilities.max(dim=1)
        rows = (
            [i, names[int(k)], f"{float(p):.4f}", *(f"{value:.4f}" for value in each)]
            for i, (k, p, each) in enumerate(zip(predicted, top, probabilities.tolist(), strict=True))
        )
        path = artifacts.save_table(self.trainer, "predictions", ["image", "class", "probability", *names], rows)
        if path:
            print(f"predictions of {len(probabilities)} images: {path}")

    def after_fit(self) -> None:
        if self._get(self.config, "test_after_fit") and not self._is_trial:
            checkpoint = self.trainer.checkpoint_callback
            best = getattr(checkpoint, "best_model_path", "") or None
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best, weights_only=True, verbose=False)
        self._say_where()

    def after_validate(self) -> None:
        self._say_where()

    def after_test(self) -> None:
        self._say_where()

    @property
    def _is_trial(self) -> bool:
        return bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]  # Lightning sets it untyped

    def _say_where(self) -> None:
        if self.trainer.is_global_zero and not self._is_trial:
            print(f"run folder:  {self.run_dir}\nTensorBoard: tensorboard --logdir {self.run_dir}")

    def _choose_run_dir(self, command: str = "") -> Path:
        given = os.environ.get(RUN_DIR_VARIABLE) or self._get(self.config, "run_dir")
        if given:
            return Path(given)
        command = command or str(self.subcommand)
        verb = "" if command == "fit" else f"-{command}"
        stem = f"{type(self.model).__name__}{verb}-{datetime.now():%Y%m%d-%H%M%S}"
        paths = (Path("runs") / (stem + (f"-{i}" if i else "")) for i in range(1000))
        return next(path for path in paths if not path.exists())

    def _claim_run_dir(self, stage: str) -> None:
        """Make the folder, once all that is needed was found good."""
        self.datamodule.prepare_data()
        self.datamodule.setup(stage)
        if self._is_trial or RUN_DIR_VARIABLE in os.environ:
            return
        if self.resumes is not None:
            type(self).lock = FolderLock(self.run_dir)
            os.environ[RUN_DIR_VARIABLE] = str(self.run_dir)
            remove_parts(self.run_dir)
            write_atomically(self.run_dir / "config.yaml", self._config_text().encode())
            return
        if self.run_dir.exists():
            raise UsageError(f"{self.run_dir} exists: a run never overwrites; pass another {self.folder_option}.")
        missing = [folder for folder in reversed(self.run_dir.parents) if not folder.exists()]
        try:
            self.run_dir.parent.mkdir(parents=True, exist_ok=True)
            self.run_dir.mkdir()  # fails for the second of two runs that start at once
        except OSError as error:
            reason = f"{os.strerror(error.errno or 0)}; pass another {self.folder_option}."
            raise UsageError(f"cannot make the run folder {self.run_dir}: {reason}") from error
        type(self).made = [*missing, self.run_dir]
        type(self).lock = FolderLock(self.run_dir)
        os.environ[RUN_DIR_VARIABLE] = str(self.run_dir)
        write_atomically(self.run_dir / "config.yaml", self._config_text().encode())

    def _config_text(self) -> str:
        """The configuration as YAML, without what belongs to this one call."""
        assert self.subcommand is not None
        config: Namespace = self.config[self.subcommand].clone()
        for key in ("config", "run_dir", "ckpt_path"):
            config.pop(key, None)
        text = self._parser(self.subcommand).dump(config, skip_none=False, skip_validation=True)
        return str(text)
