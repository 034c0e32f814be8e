"""The lidar-only BEVFusion detector and its parts."""

from kd_runner.models.bevfusion.detector import BEVFusionLidar, DensePart

__all__ = ["BEVFusionLidar", "DensePart"]
