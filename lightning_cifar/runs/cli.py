"""The LightningCLI of a run: its options, its checks, its callbacks and its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import ActionFail, Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_cifar import callbacks
from lightning_cifar.analysis.layers import compile_networks
from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
from lightning_cifar.checkpoints.reading import CONFIG_KEY, RUN_ID, Checkpoint
from lightning_cifar.errors import UsageError
from lightning_cifar.files.paths import expand_users
from lightning_cifar.models.transfer import Transfer
from lightning_cifar.runs.arguments import Arguments
from lightning_cifar.runs.board_record import BoardRecord
from lightning_cifar.runs.compatibility import (
    check_kinds,
    check_settings,
    check_weights,
    show_as_trained,
)
from lightning_cifar.runs.default_callbacks import default_callbacks
from lightning_cifar.runs.final_test import evaluate_best
from lightning_cifar.runs.folder import RunFolder
from lightning_cifar.runs.fork import ForkPoint
from lightning_cifar.runs.loggers import run_loggers
from lightning_cifar.runs.parser import Parser, allow_value, check_nulls
from lightning_cifar.runs.progress_lines import FewSteps
from lightning_cifar.runs.record import RunRecord
from lightning_cifar.runs.trainer_settings import (
    TRAINER_DEFAULTS,
    check_goes_on,
    check_trainer,
    fastest_precision,
    precision_hint,
)

_OF_DATA = ("num_classes", "in_channels", "image_size")  # arguments of a model that are attributes of the data


class RunCLI(LightningCLI):
    """LightningCLI with one-line errors, run folders, and settings from checkpoints.

    Args:
        checkpoint: Checkpoint of ``--ckpt_path``, read once for the whole run.
        defaults: Settings of a checkpoint or of a resumed run, which replace the defaults of the classes.
        parent: Where a fork starts.
    """

    def __init__(
        self,
        arguments: Arguments,
        folder: RunFolder,
        checkpoint: Checkpoint | None = None,
        defaults: Mapping[str, Any] | None = None,
        parent: ForkPoint | None = None,
    ) -> None:
        self.folder, self.checkpoint, self.defaults, self.parent = folder, checkpoint, defaults or {}, parent
        self._arguments = arguments
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            parser_class=Parser,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            args=[arguments.command, *arguments.args],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # the base's needs no instance
        """Return only the command that runs, since building the parsers of all four takes half a second."""
        return {
            name: skipped for name, skipped in LightningCLI.subcommands().items() if name == self._arguments.command
        }

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        allow_value(parser, "trainer.precision", "auto")
        if subcommand == "fit":
            # For --help only: find_resumed removes the option from the command line before it is parsed.
            refused = ActionFail(message="%(option)s is an option of the command line only: fit --resume runs/...")
            help_text = "Continue the interrupted run in this folder; the results are the same to the bit."
            parser.add_argument("--resume", action=refused, metavar="DIR", help=help_text)
        try:
            parser.set_defaults({name: value for name, value in self.defaults.items() if value is not None})
        except KeyError as error:  # of the parser: a setting of another version, or a typing error
            source = "config.yaml" if self.folder.resumed else str(self.checkpoint and self.checkpoint.path)
            message = str(error.args[0]).split(" to set ")[0].replace("No action for key", "there is no setting")
            raise UsageError(f"{source}: {message}: remove it, or correct its name.") from error
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add = parser.add_argument
        text = "Folder of this run, which must not exist. Default: in runs/, named after the model and the time."
        add("--run_dir", type=str | None, default=None, help=text)
        text = "After fit, evaluate the best checkpoint (by validation accuracy, or else loss; of several networks, "
        add("--test_after_fit", type=bool, default=False, help=f"{text}the best of each) once on the test set.")
        text = "Keep the exact state every n epochs, for lightning-cifar fork. Default: only the latest."
        add("--keep_every_n_epochs", type=PositiveInt | None, default=None, help=text)
        text = "Compile the network with torch.compile: the first steps take about a minute, the others less time."
        add("--compile", type=bool, default=False, help=text)
        # A link is ignored if the data have no such attribute, or the model no such argument.
        for name in _OF_DATA:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # Nothing in a checkpoint is executed.
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    def _parse_ckpt_path(self) -> None:
        """Do nothing: in Lightning, the values of a checkpoint override options. See :func:`_settings`."""

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise UsageError(f"seed_everything (={seed}) must be at least 0 and below 4294967296.")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Check the settings and the class of the checkpoint; expand ``~`` in paths."""
        assert self.subcommand is not None
        self.config[self.subcommand] = expand_users(self.config[self.subcommand])
        trainer = vars(self._get(self.config, "trainer"))
        check_trainer(trainer)
        if trainer["precision"] == "auto":
            trainer["precision"], reason = fastest_precision(trainer["accelerator"])
            rank_zero_only(print)(f"precision: {trainer['precision']}, because {reason}")
        for section in ("model", "data"):
            check_nulls(section, self._get(self.config, section))
        if self._get(self.config, "resume") is not None:
            raise UsageError("resume is an option of the command line only: fit --resume runs/...")
        if self.checkpoint is None:
            return
        of_fit = self.subcommand == "fit"
        if self.parent is not None:
            self.parent.check_class(self._get(self.config, "data")["class_path"])
        new = {} if self.parent is None else {"new": "start a new run with fit"}
        check_settings(self.checkpoint, self._get(self.config, "model"), of_fit=of_fit, **new)
        if of_fit:
            check_goes_on(trainer, self.checkpoint.progress)
        else:
            show_as_trained(self.checkpoint, self._get(self.config, "data"))

    def after_instantiate_classes(self) -> None:
        """Check that model, data and checkpoint fit together, before anything is written."""
        check_kinds(self.model, self.datamodule)
        for name in _OF_DATA:
            given = self._arguments.get(f"--model.{name}", f"--model.init_args.{name}")
            actual = getattr(self.datamodule, name, None)
            if given is not None and actual is not None and given != str(actual):
                raise UsageError(f"model.{name} (={given}) is {actual} in the data: leave it out.")
        if self.checkpoint is not None:
            check_weights(self.checkpoint, self.model, self.datamodule)
        if self._get(self.config, "compile"):
            if isinstance(self.model, Transfer):
                raise UsageError(
                    f"compile (=true) has no effect on {type(self.model).__name__}, which calls the stages of its "
                    "network one by one: leave it out."
                )
            compile_networks(self.model)
        hint = precision_hint(self._get(self.config, "trainer"), self.model)
        if self.subcommand == "fit" and hint:
            rank_zero_only(print)(hint)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        assert self.subcommand is not None
        self.run_dir = self._choose_run_dir(str(self.subcommand))
        config = self._get(self.config_init, "trainer")
        given: list[Callback] = config["callbacks"] or []
        if isinstance(given, Callback):
            given = [given]
        folder = self.run_dir / "checkpoints"
        defaults = default_callbacks(self.model, self.datamodule, self.subcommand, config, folder, given)
        config["callbacks"] = [*given, *defaults]
        # First, so that it saves the state before other callbacks change it at the start of an epoch.
        config["callbacks"].sort(key=lambda callback: not isinstance(callback, callbacks.ExactResume))
        if (keep := self._get(self.config, "keep_every_n_epochs")) is not None and self.subcommand == "fit":
            if not config["callbacks"] or not isinstance(config["callbacks"][0], callbacks.ExactResume):
                raise UsageError(
                    f"keep_every_n_epochs (={keep}) needs checkpoints: leave enable_checkpointing false out."
                )
            config["callbacks"][0].keep_every_n_epochs = keep
        record = RunRecord(self.subcommand, self._config_text(), self.folder)
        config["callbacks"] += [record, BoardRecord(record)]
        if type(self) is RunCLI and self.subcommand == "fit":  # not in a study
            config["callbacks"].append(FewSteps())
        # TensorBoard hides values that an interrupted run logged after the checkpoint, if the first part of the run has
        # a step too. What is logged before the first step, such as the layer table, is not logged again.
        resumed = self.folder.resumed
        purge = 0 if resumed is None else max(1, resumed.checkpoint.progress.get("steps", 1))
        config["logger"] = run_loggers(self.run_dir, config["logger"], purge)
        if config["enable_model_summary"] is None:
            config["enable_model_summary"] = False  # LayerTable replaces it
        config["default_root_dir"] = str(self.run_dir)
        plugins = config["plugins"] or []
        config["plugins"] = [
            *(plugins if isinstance(plugins, list) else [plugins]),
            VerifiedCheckpointIO(self.checkpoint),
        ]
        return pl.Trainer(**config)

    def _run_subcommand(self, subcommand: str) -> None:
        """Read the data and create the folder, then run."""
        self.datamodule.prepare_data()
        self.datamodule.setup(subcommand)
        if self.parent is not None:
            self.parent.check_data(self.datamodule)
            if self.trainer.is_global_zero:
                print(self.parent.describe(yaml.safe_load(self._config_text())))
        if not self._is_trial:
            fill = self._write_state if self.parent is not None else None
            self.folder.claim(self._config_text(), fill, is_writer=self.trainer.is_global_zero)
        super()._run_subcommand(subcommand)

    def _write_state(self, folder: Path) -> None:
        """Write the state of a fork's parent to its folder, from which ``--resume`` continues at any time."""
        assert self.parent is not None
        own = {RUN_ID: self.folder.run_id, CONFIG_KEY: self._config_text()}
        self.parent.write(folder, own | {"hyper_parameters": dict(self.model.hparams)})

    def predict(self, **kwargs: Any) -> None:
        """Predict the test samples; a callback writes the table."""
        self.trainer.predict(**{**kwargs, "return_predictions": False})

    def after_fit(self) -> None:
        if self._get(self.config, "test_after_fit") and not self._is_trial:
            evaluate_best(self.trainer, self.model, self.datamodule)
        self._print_folder()

    def _print_folder(self) -> None:
        if self.trainer.is_global_zero and not self._is_trial:
            print(f"run folder:  {self.run_dir}")
            if any(isinstance(logger, TensorBoardLogger) for logger in self.trainer.loggers):
                print(f"TensorBoard: tensorboard --logdir {self.run_dir}")

    after_validate = after_test = _print_folder

    @property
    def _is_trial(self) -> bool:
        return bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]  # Lightning sets it untyped

    def _choose_run_dir(self, command: str) -> Path:
        verb = "" if command == "fit" else f"-{command}"
        return self.folder.choose(self._get(self.config, "run_dir"), f"{type(self.model).__name__}{verb}")

    def _config_text(self) -> str:
        """Return the configuration as YAML, without the options of this call."""
        assert self.subcommand is not None
        config: Namespace = self.config[self.subcommand].clone()
        for key in ("config", "run_dir", "ckpt_path"):
            config.pop(key, None)
        text = self._parser(self.subcommand).dump(config, skip_none=False, skip_validation=True)
        return str(text)
