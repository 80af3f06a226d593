"""Drawing: arrays in, a matplotlib ``Figure`` or an HTML page out. No pyplot, no torch, nothing is saved.

The names are imported on first use, since matplotlib takes about half a second to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lightning_cifar.plots.inline import show_inline

if TYPE_CHECKING:
    from lightning_cifar.plots.activations import (
        DensityCurve,
        DensityPanel,
        MomentCurve,
        MomentPanel,
        animate_densities,
        draw_densities,
        draw_moments,
        draw_ridges,
    )
    from lightning_cifar.plots.animation import encode_animation
    from lightning_cifar.plots.classification import draw_confusion
    from lightning_cifar.plots.conv_bench import draw_conv_bench
    from lightning_cifar.plots.curves import Curve, draw_loss_curves, draw_members_curves
    from lightning_cifar.plots.feature_maps import draw_feature_maps, draw_maps_over_training
    from lightning_cifar.plots.filters import draw_filter_frame, draw_filters
    from lightning_cifar.plots.fit_curves import (
        FitCurve,
        FitPicture,
        FitPoints,
        animate_fits,
        draw_fit,
        draw_fit_sheet,
    )
    from lightning_cifar.plots.graph import GraphNode, draw_graph
    from lightning_cifar.plots.image_grid import draw_image_grid, to_displayable
    from lightning_cifar.plots.lr_range import draw_lr_range
    from lightning_cifar.plots.lr_range_view import LRCurve
    from lightning_cifar.plots.occlusion import Occlusion, draw_explanation, draw_occlusion_maps, to_percent
    from lightning_cifar.plots.pages.explain_page import Explained, Picture, explain_html
    from lightning_cifar.plots.pages.lr_range_page import lr_range_html
    from lightning_cifar.plots.pages.report_page import (
        HeatMap,
        Interval,
        PagePicture,
        ReportPage,
        Table,
        arm_colors,
        report_html,
    )
    from lightning_cifar.plots.prediction_table import PredictedPhotograph, draw_photographs
    from lightning_cifar.plots.predictions import draw_predictions
    from lightning_cifar.plots.regimes import draw_regimes
    from lightning_cifar.plots.rendering import to_frames
    from lightning_cifar.plots.report_curves import ArmBand, draw_report_curves

_HOME = {
    "Curve": "curves",
    "DensityCurve": "activations",
    "DensityPanel": "activations",
    "Explained": "pages.explain_page",
    "FitCurve": "fit_curves",
    "FitPicture": "fit_curves",
    "FitPoints": "fit_curves",
    "LRCurve": "lr_range_view",
    "MomentCurve": "activations",
    "MomentPanel": "activations",
    "Occlusion": "occlusion",
    "Picture": "pages.explain_page",
    "PredictedPhotograph": "prediction_table",
    "animate_densities": "activations",
    "animate_fits": "fit_curves",
    "draw_confusion": "classification",
    "draw_conv_bench": "conv_bench",
    "draw_densities": "activations",
    "draw_explanation": "occlusion",
    "draw_feature_maps": "feature_maps",
    "draw_filter_frame": "filters",
    "draw_filters": "filters",
    "draw_fit": "fit_curves",
    "draw_fit_sheet": "fit_curves",
    "GraphNode": "graph",
    "draw_graph": "graph",
    "draw_image_grid": "image_grid",
    "draw_loss_curves": "curves",
    "draw_members_curves": "curves",
    "draw_lr_range": "lr_range",
    "draw_maps_over_training": "feature_maps",
    "draw_moments": "activations",
    "draw_occlusion_maps": "occlusion",
    "draw_photographs": "prediction_table",
    "draw_predictions": "predictions",
    "draw_regimes": "regimes",
    "draw_ridges": "activations",
    "encode_animation": "animation",
    "explain_html": "pages.explain_page",
    "lr_range_html": "pages.lr_range_page",
    "to_displayable": "image_grid",
    "to_frames": "rendering",
    "to_percent": "occlusion",
    "ArmBand": "report_curves",
    "draw_report_curves": "report_curves",
    "HeatMap": "pages.report_page",
    "Interval": "pages.report_page",
    "PagePicture": "pages.report_page",
    "ReportPage": "pages.report_page",
    "Table": "pages.report_page",
    "arm_colors": "pages.report_page",
    "report_html": "pages.report_page",
}

__all__ = [
    "ArmBand",
    "Curve",
    "DensityCurve",
    "DensityPanel",
    "Explained",
    "FitCurve",
    "FitPicture",
    "FitPoints",
    "GraphNode",
    "HeatMap",
    "Interval",
    "LRCurve",
    "MomentCurve",
    "MomentPanel",
    "Occlusion",
    "PagePicture",
    "Picture",
    "PredictedPhotograph",
    "ReportPage",
    "Table",
    "animate_densities",
    "animate_fits",
    "arm_colors",
    "draw_confusion",
    "draw_conv_bench",
    "draw_densities",
    "draw_explanation",
    "draw_feature_maps",
    "draw_filter_frame",
    "draw_filters",
    "draw_fit",
    "draw_fit_sheet",
    "draw_graph",
    "draw_image_grid",
    "draw_loss_curves",
    "draw_lr_range",
    "draw_maps_over_training",
    "draw_members_curves",
    "draw_moments",
    "draw_occlusion_maps",
    "draw_photographs",
    "draw_predictions",
    "draw_regimes",
    "draw_report_curves",
    "draw_ridges",
    "encode_animation",
    "explain_html",
    "lr_range_html",
    "report_html",
    "to_displayable",
    "to_frames",
    "to_percent",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        show_inline()
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
