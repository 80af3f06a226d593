"""What a training choice does to a convolutional network on CIFAR-10.

The public names. Each is imported on first use, so that ``import lightning_cifar`` loads neither torch nor matplotlib.

>>> from lightning_cifar import lr_factor
>>> lr_factor(0.5, schedule="linear")
0.5
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_cifar import analysis, artifacts, callbacks, cli, data, ext, models, plots, schedules, studies
    from lightning_cifar.analysis.classification import class_table, confusion_matrix
    from lightning_cifar.analysis.feature_maps import feature_maps
    from lightning_cifar.analysis.layers import list_layers
    from lightning_cifar.analysis.occlusion.maps import occlusion_map
    from lightning_cifar.analysis.statistics import mean_interval, paired_differences
    from lightning_cifar.callbacks import (
        ActivationSnapshots,
        ClassAccuracy,
        ExactResume,
        FeatureMaps,
        FilterImages,
        FitCurves,
        LayerTable,
        LossCurves,
        LRRangeFinder,
        NonFiniteGuard,
        OcclusionMaps,
        PredictionGrid,
        PredictionTable,
        SampleGrid,
        Throughput,
        WeightGIF,
    )
    from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
    from lightning_cifar.checkpoints.trained import Trained, load_trained
    from lightning_cifar.commands.export.reading import load_safetensors
    from lightning_cifar.data import (
        CIFAR10DataModule,
        FashionMNISTDataModule,
        ImageDataModule,
        ImageFolderDataModule,
        MNISTDataModule,
        NoisyLineDataModule,
        SyntheticDataModule,
    )
    from lightning_cifar.ext.convolution import conv2d, conv2d_backward
    from lightning_cifar.ext.gradients import numeric_gradient
    from lightning_cifar.models import (
        MLP,
        Classifier,
        ConvNet,
        DilatedNet,
        LeNet,
        LinearClassifier,
        MLPRegressor,
        PretrainedAlexNet,
        PretrainedInception,
        PretrainedResNet,
        PretrainedSqueezeNet,
        PretrainedVGG,
        Regressor,
        ResNetCIFAR,
        SideBySide,
        TwoLayerNet,
    )
    from lightning_cifar.notebook import show
    from lightning_cifar.schedules import lr_factor

__version__ = "0.1.0"

_NAMES = {  # by the module that has them
    "analysis.classification": (
        "class_table",
        "confusion_matrix",
    ),
    "analysis.feature_maps": ("feature_maps",),
    "analysis.layers": ("list_layers",),
    "analysis.occlusion": ("occlusion_map",),
    "analysis.statistics": (
        "mean_interval",
        "paired_differences",
    ),
    "callbacks": (
        "ActivationSnapshots",
        "ClassAccuracy",
        "ExactResume",
        "FeatureMaps",
        "FilterImages",
        "FitCurves",
        "LRRangeFinder",
        "LayerTable",
        "LossCurves",
        "NonFiniteGuard",
        "OcclusionMaps",
        "PredictionGrid",
        "PredictionTable",
        "SampleGrid",
        "Throughput",
        "WeightGIF",
    ),
    "checkpoints.io": ("VerifiedCheckpointIO",),
    "data": (
        "CIFAR10DataModule",
        "FashionMNISTDataModule",
        "ImageDataModule",
        "ImageFolderDataModule",
        "MNISTDataModule",
        "NoisyLineDataModule",
        "SyntheticDataModule",
    ),
    "commands.export.reading": ("load_safetensors",),
    "ext.convolution": (
        "conv2d",
        "conv2d_backward",
    ),
    "ext.gradients": ("numeric_gradient",),
    "models": (
        "Classifier",
        "ConvNet",
        "DilatedNet",
        "LeNet",
        "LinearClassifier",
        "MLP",
        "MLPRegressor",
        "PretrainedAlexNet",
        "PretrainedInception",
        "PretrainedResNet",
        "PretrainedSqueezeNet",
        "PretrainedVGG",
        "Regressor",
        "ResNetCIFAR",
        "SideBySide",
        "TwoLayerNet",
    ),
    "notebook": ("show",),
    "schedules": ("lr_factor",),
    "checkpoints.trained": (
        "Trained",
        "load_trained",
    ),
}
_MODULES = ("analysis", "artifacts", "callbacks", "cli", "data", "ext", "models", "plots", "schedules", "studies")
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "MLP",
    "ActivationSnapshots",
    "CIFAR10DataModule",
    "ClassAccuracy",
    "Classifier",
    "ConvNet",
    "DilatedNet",
    "ExactResume",
    "FashionMNISTDataModule",
    "FeatureMaps",
    "FilterImages",
    "FitCurves",
    "ImageDataModule",
    "ImageFolderDataModule",
    "LRRangeFinder",
    "LayerTable",
    "LeNet",
    "LinearClassifier",
    "LossCurves",
    "MLPRegressor",
    "MNISTDataModule",
    "NoisyLineDataModule",
    "NonFiniteGuard",
    "OcclusionMaps",
    "PredictionGrid",
    "PredictionTable",
    "PretrainedAlexNet",
    "PretrainedInception",
    "PretrainedResNet",
    "PretrainedSqueezeNet",
    "PretrainedVGG",
    "Regressor",
    "ResNetCIFAR",
    "SampleGrid",
    "SideBySide",
    "SyntheticDataModule",
    "Throughput",
    "Trained",
    "TwoLayerNet",
    "VerifiedCheckpointIO",
    "WeightGIF",
    "__version__",
    "analysis",
    "artifacts",
    "callbacks",
    "class_table",
    "cli",
    "confusion_matrix",
    "conv2d",
    "conv2d_backward",
    "data",
    "ext",
    "feature_maps",
    "list_layers",
    "load_safetensors",
    "load_trained",
    "lr_factor",
    "mean_interval",
    "models",
    "numeric_gradient",
    "occlusion_map",
    "paired_differences",
    "plots",
    "schedules",
    "show",
    "studies",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
