"""What watches a training: each callback says when, and leaves computing, drawing and saving to the other packages.

They serve any LightningModule and any data module. matplotlib is loaded when the first picture is drawn.
"""

from lightning_cifar.callbacks.class_accuracy import ClassAccuracy
from lightning_cifar.callbacks.layer_table import LayerTable
from lightning_cifar.callbacks.loss_curves import LossCurves
from lightning_cifar.callbacks.lr_range_finder import LRRangeFinder
from lightning_cifar.callbacks.sample_grid import SampleGrid
from lightning_cifar.callbacks.throughput import Throughput

__all__ = ["ClassAccuracy", "LRRangeFinder", "LayerTable", "LossCurves", "SampleGrid", "Throughput"]
