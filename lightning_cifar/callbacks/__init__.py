"""Callbacks for any LightningModule and any data module.

A callback decides when to act; the packages ``analysis``, ``plots`` and ``artifacts`` compute, draw and save.
matplotlib is imported when the first picture is drawn.
"""

from lightning_cifar.callbacks.activation_snapshots import ActivationSnapshots
from lightning_cifar.callbacks.class_accuracy import ClassAccuracy
from lightning_cifar.callbacks.ema import EMA
from lightning_cifar.callbacks.embedding_projector import EmbeddingProjector
from lightning_cifar.callbacks.exact_resume import ExactResume
from lightning_cifar.callbacks.feature_maps import FeatureMaps
from lightning_cifar.callbacks.filter_images import FilterImages
from lightning_cifar.callbacks.fit_curves import FitCurves
from lightning_cifar.callbacks.layer_table import LayerTable
from lightning_cifar.callbacks.loss_curves import LossCurves
from lightning_cifar.callbacks.lr_range_finder import LRRangeFinder
from lightning_cifar.callbacks.microscope import Microscope
from lightning_cifar.callbacks.non_finite_guard import NonFiniteGuard
from lightning_cifar.callbacks.occlusion_maps import OcclusionMaps
from lightning_cifar.callbacks.prediction_grid import PredictionGrid
from lightning_cifar.callbacks.prediction_table import PredictionTable
from lightning_cifar.callbacks.sample_grid import SampleGrid
from lightning_cifar.callbacks.sharpness import Sharpness
from lightning_cifar.callbacks.swa import SWAWeightAveraging
from lightning_cifar.callbacks.throughput import Throughput
from lightning_cifar.callbacks.weight_gif import WeightGIF
from lightning_cifar.callbacks.weight_histograms import WeightHistograms
from lightning_cifar.callbacks.weight_trajectory import WeightTrajectory

__all__ = [
    "EMA",
    "ActivationSnapshots",
    "ClassAccuracy",
    "EmbeddingProjector",
    "ExactResume",
    "FeatureMaps",
    "FilterImages",
    "FitCurves",
    "LRRangeFinder",
    "LayerTable",
    "LossCurves",
    "Microscope",
    "NonFiniteGuard",
    "OcclusionMaps",
    "PredictionGrid",
    "PredictionTable",
    "SWAWeightAveraging",
    "SampleGrid",
    "Sharpness",
    "Throughput",
    "WeightGIF",
    "WeightHistograms",
    "WeightTrajectory",
]
