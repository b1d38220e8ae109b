"""Forecasts to stand beside: what a model must beat to be worth its training."""

from stlora_kernels.backbones.registry import backbone_class, backbone_names
from stlora_kernels.baselines.base import Baseline
from stlora_kernels.baselines.ha import HistoricalAverage
from stlora_kernels.baselines.svr import SVR
from stlora_kernels.baselines.var import VAR

__all__ = ["SVR", "VAR", "Baseline", "HistoricalAverage", "trained_names"]


def trained_names() -> tuple[str, ...]:
    """The registered backbones that are trained, and can take the adapter: all but the baselines."""
    return tuple(name for name in backbone_names() if not issubclass(backbone_class(name), Baseline))
