"""Forecasts to stand beside: what a model must beat to be worth its training."""

from stlora_kernels.baselines.ha import HistoricalAverage

__all__ = ["HistoricalAverage"]
