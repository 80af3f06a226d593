"""Occlusion maps: decrease of the probability of a class when a part of the image is covered."""

from lightning_cifar.analysis.occlusion.maps import OcclusionMap, occlusion_map

__all__ = ["OcclusionMap", "occlusion_map"]
