"""Forecasts to stand beside: what a model must beat to be worth its training."""

from stlora_kernels.baselines.base import Baseline
from stlora_kernels.baselines.ha import HistoricalAverage
from stlora_kernels.baselines.svr import SVR
from stlora_kernels.baselines.var import VAR

__all__ = ["SVR", "VAR", "Baseline", "HistoricalAverage"]
