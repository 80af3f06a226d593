"""A run is a folder: config.yaml, metrics.csv, TensorBoard events, checkpoints, pictures, tables and result.json.

The folder appears when everything that can be refused was accepted, and belongs to one run for ever.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
from jsonargparse import ActionFail, Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_cifar import callbacks
from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.checkpoints.settings import trained_settings
from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.files.paths import expand_users
from lightning_cifar.runs.arguments import Arguments
from lightning_cifar.runs.compatibility import (
    check_kinds,
    check_settings,
    check_weights,
    is_of_restoring,
    show_as_trained,
)
from lightning_cifar.runs.default_callbacks import default_callbacks
from lightning_cifar.runs.disk_full import is_full, no_space, silent_writers
from lightning_cifar.runs.expected_warnings import expected_warnings_ignored
from lightning_cifar.runs.final_test import evaluate_best
from lightning_cifar.runs.folder import RunFolder
from lightning_cifar.runs.loggers import run_loggers
from lightning_cifar.runs.parser import Parser
from lightning_cifar.runs.progress_lines import FewSteps
from lightning_cifar.runs.record import RunRecord
from lightning_cifar.runs.resume import Resumed, can_resume, find_resumed
from lightning_cifar.runs.signals import interruption_behind, terminations_raised
from lightning_cifar.runs.trainer_settings import check_goes_on, check_trainer
from lightning_cifar.runs.user_modules import allow_modules


class RunCLI(LightningCLI):
    """LightningCLI with our parser, run folders, and settings from checkpoints.

    Args:
        arguments: The command line.
        folder: Of the run.
        checkpoint: That ``--ckpt_path`` names, read once for the whole run.
        defaults: Settings that replace the classes' defaults: those of a checkpoint, or of a run that goes on.
    """

    def __init__(
        self,
        arguments: Arguments,
        folder: RunFolder,
        checkpoint: Checkpoint | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.checkpoint, self.defaults = folder, checkpoint, defaults or {}
        self._command = arguments.command
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
            trainer_defaults={"max_epochs": 10, "log_every_n_steps": 10, "num_sanity_val_steps": 0},
            args=[arguments.command, *arguments.args],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # the base's needs no instance
        """The command that runs, alone: to build the parsers of all four takes half a second."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name == self._command}

    @classmethod
    def start(cls, arguments: Arguments, *, option: str = "--run_dir", **extra: Any) -> Self:
        """Parse and run a command line.

        Args:
            arguments: The command line.
            option: With which the user names the folder of the run, for messages.
            **extra: What the constructor of a subclass takes beyond that of this class.

        Raises:
            UsageError: If something about it is wrong.
            KeyboardInterrupt: If it was interrupted; with how to go on.
        """
        with expected_warnings_ignored(), silent_writers(), terminations_raised():
            arguments, resumed = find_resumed(arguments)
            allow_modules(*arguments.class_paths, *(resumed.class_paths if resumed else ()))
            folder = RunFolder(resumed, option=option)
            try:
                checkpoint, defaults = _settings(arguments, resumed)
                return cls(arguments, folder, checkpoint, defaults, **extra)
            except SystemExit as stop:
                interruption = interruption_behind(stop)
                if interruption is None:
                    raise
                # Lightning has put the training away in order, and would leave with 0 or 1.
                can = folder.path is not None and can_resume(folder.path)
                raise interruption(f"go on with: lightning-cifar fit --resume {folder.path}" if can else "") from stop
            except Exception as error:
                folder.leave_nothing()
                if is_full(error) and folder.is_claimed:
                    assert folder.path is not None
                    raise no_space(folder.path, resumes=cls is RunCLI) from error
                if is_of_restoring(error):
                    name = arguments.get("--ckpt_path")
                    raise UsageError(f"{name} cannot be restored here: {one_line(error)[:160]}") from error
                raise
            finally:
                folder.release()

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            # For --help: find_resumed takes it out of the command line before that is parsed.
            refused = ActionFail(message="%(option)s belongs on the command line: fit --resume runs/...")
            help_text = "Folder of a run that broke: continue it, to the same bits."
            parser.add_argument("--resume", action=refused, metavar="DIR", help=help_text)
        try:
            parser.set_defaults({name: value for name, value in self.defaults.items() if value is not None})
        except KeyError as error:  # of the parser: a setting of another version, or a typing error
            source = "config.yaml" if self.folder.resumed else str(self.checkpoint and self.checkpoint.path)
            message = str(error.args[0]).split(" to set ")[0].replace("No action for key", "there is no setting")
            raise UsageError(f"{source}: {message}: remove it, or correct its name.") from error
        return parser

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
            help="After fit, evaluate the best checkpoint (by its accuracy, or else its loss, in validation; networks "
            "side by side each at its own best) once on the test set.",
        )
        # A link of which one end has no such attribute or argument (numbers instead of images, say) is passed over.
        for name in ("num_classes", "in_channels", "image_size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # A checkpoint is data: nothing in it is executed.
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    def _parse_ckpt_path(self) -> None:
        """Lightning's version lets the checkpoint's values beat the explicit flags; see :func:`_settings`."""

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise UsageError(f"seed_everything (={seed}) must be at least 0 and below 4294967296.")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Refuse settings that cannot work, and a checkpoint of another class; expand ``~`` in every path."""
        assert self.subcommand is not None
        self.config[self.subcommand] = expand_users(self.config[self.subcommand])
        trainer = vars(self._get(self.config, "trainer"))
        check_trainer(trainer)
        if self._get(self.config, "resume") is not None:
            raise UsageError("resume belongs on the command line, not into a configuration: fit --resume runs/...")
        if self.checkpoint is None:
            return
        of_fit = self.subcommand == "fit"
        check_settings(self.checkpoint, self._get(self.config, "model"), of_fit=of_fit)
        if of_fit:
            check_goes_on(trainer, self.checkpoint.progress)
        else:
            show_as_trained(self.checkpoint, self._get(self.config, "data"))

    def after_instantiate_classes(self) -> None:
        """Refuse data of another kind, and a checkpoint of other layers, before anything is written."""
        check_kinds(self.model, self.datamodule)
        if self.checkpoint is not None:
            check_weights(self.checkpoint, self.model, self.datamodule)

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
        # First: what the others do at the start of an epoch comes after the state that is saved there.
        config["callbacks"].sort(key=lambda callback: not isinstance(callback, callbacks.ExactResume))
        config["callbacks"].append(RunRecord(self.subcommand, self._config_text(), self.folder))
        if type(self) is RunCLI and self.subcommand == "fit":  # those of a study know what they do
            config["callbacks"].append(FewSteps())
        # TensorBoard hides what a broken run logged after the point from which it goes on.
        resumed = self.folder.resumed
        purge = None if resumed is None else resumed.checkpoint.progress.get("steps")
        config["logger"] = run_loggers(self.run_dir, config["logger"], purge)
        if config["enable_model_summary"] is None:
            config["enable_model_summary"] = False  # the layer table takes its place
        config["default_root_dir"] = str(self.run_dir)
        plugins = config["plugins"] or []
        config["plugins"] = [
            *(plugins if isinstance(plugins, list) else [plugins]),
            VerifiedCheckpointIO(self.checkpoint),
        ]
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
        """Predict the test samples; a callback writes the table."""
        self.trainer.predict(**{**kwargs, "return_predictions": False})

    def after_fit(self) -> None:
        if self._get(self.config, "test_after_fit") and not self._is_trial:
            evaluate_best(self.trainer, self.model, self.datamodule)
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
            print(f"run folder:  {self.run_dir}")
            if any(isinstance(logger, TensorBoardLogger) for logger in self.trainer.loggers):
                print(f"TensorBoard: tensorboard --logdir {self.run_dir}")

    def _choose_run_dir(self, command: str) -> Path:
        verb = "" if command == "fit" else f"-{command}"
        return self.folder.choose(self._get(self.config, "run_dir"), f"{type(self.model).__name__}{verb}")

    def _claim_run_dir(self, stage: str) -> None:
        """Make the folder, once all that is needed was found good."""
        self.datamodule.prepare_data()
        self.datamodule.setup(stage)
        if not self._is_trial:
            self.folder.claim(self._config_text())

    def _config_text(self) -> str:
        """The configuration as YAML, without what belongs to this one call."""
        assert self.subcommand is not None
        config: Namespace = self.config[self.subcommand].clone()
        for key in ("config", "run_dir", "ckpt_path"):
            config.pop(key, None)
        text = self._parser(self.subcommand).dump(config, skip_none=False, skip_validation=True)
        return str(text)


def _settings(arguments: Arguments, resumed: Resumed | None) -> tuple[Checkpoint | None, dict[str, Any]]:
    """The checkpoint of a command line, and the settings that it brings, which every explicit option beats."""
    if resumed is not None:
        config = {key: value for key, value in resumed.config.items() if key != "test_after_fit" or value}
        held = resumed.checkpoint.hyper_parameters
        settings = config.get("model", {}).get("init_args", {})
        for name, value in held.items():  # what the model had in the end: a learning rate that was found, say
            if name in settings:
                settings[name] = list(value) if isinstance(value, tuple) else value
        return resumed.checkpoint, config
    path = arguments.get("--ckpt_path")
    if path in (None, "null"):
        return None, {}
    assert path is not None
    checkpoint = Checkpoint.read(Path(path))
    given = [section for section in ("model", "data") if arguments.configures(section)]
    of_fit = arguments.command == "fit"
    settings, left_out = trained_settings(checkpoint, of_fit=of_fit, allowed=arguments.named_classes, given=given)
    if left_out and of_fit and not arguments.configurations:
        names = ", ".join(left_out)
        print(f"{path}: {names} are not taken from a checkpoint: pass --config, or them.", file=sys.stderr)
    return checkpoint, settings
