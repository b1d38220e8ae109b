"""What the baselines that learn have in common: they are fitted once, and see real values with NaN where missing."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_sizes

# Of a sensor's deviation in the mean deviation of all; a sensor that hardly moved would make anything else enormous.
LEAST_DEVIATION = 0.01


class Baseline(nn.Module, ABC):
    r"""A forecaster that is fitted to the training steps at once, without gradients or epochs.

    It works on standardised values, each sensor's by themselves,

    .. math:: z = (v - \mu_n) / \sigma_n

    with the mean and the deviation of the sensor's measured training values. Where a value is missing from a window,
    the last measured one before it in the same window stands in, and the sensor's mean where there is none. A sensor
    without any training value has the mean of all measured values and the mean deviation of all sensors.

    A subclass says how standardised values are learned from and forecast. It is made known by
    :func:`stlora_kernels.backbones.register` and built like a backbone. What it learns are parameters and buffers, so
    that a checkpoint holds all of it.

    Args:
        num_nodes: N. window: T input steps. horizon: H steps to forecast.

    Shapes: ``[B, T, N]`` in real units, NaN where missing, to ``[B, H, N]`` in real units.

    Raises:
        InputError: for sizes or shapes that do not fit.
    """

    is_fitted_at_once = True  # so that backbone_names leaves it out
    mean: Tensor  # [N]
    std: Tensor  # [N]

    def __init__(self, num_nodes: int, window: int, horizon: int) -> None:
        super().__init__()
        check_sizes(num_nodes=num_nodes, window=window, horizon=horizon)
        self.window, self.horizon = window, horizon
        self.register_buffer("mean", torch.zeros(num_nodes))
        self.register_buffer("std", torch.ones(num_nodes))

    @abstractmethod
    def learn(self, z: Tensor, seed: int) -> str:
        """Fill the parameters from the standardised training steps ``[S, N]``, NaN where missing; say in words how."""

    @abstractmethod
    def ahead(self, z: Tensor) -> Tensor:
        """From standardised windows without gaps ``[B, T, N]`` to standardised forecasts ``[B, H, N]``."""

    @torch.no_grad()
    def fit(self, values: Tensor, seed: int = 0) -> str:
        """Learn from the training steps and say in words how.

        Args:
            values: ``[S, N]`` in real units, NaN where missing: the training steps and no other. They and the module
                are on the CPU.
            seed: of what is drawn at random, if anything is.

        Raises:
            InputError: if there are too few steps for one window or nothing was measured.
        """
        name, nodes, least = type(self).__name__, len(self.mean), self.window + self.horizon
        if values.ndim != 2 or values.shape[1] != nodes or len(values) < least:
            raise InputError(f"{name}: got training values {list(values.shape)}, expected [{least} or more, {nodes}]")
        if values.isnan().all():
            raise InputError(f"{name}: every training value is missing, there is nothing to fit")
        self._learn_scale(values)
        return self.learn(self._standardised(values), seed)

    @torch.no_grad()
    def forward(self, values: Tensor) -> Tensor:
        expected = (self.window, len(self.mean))
        if values.ndim != 3 or values.shape[1:] != expected:
            raise InputError(
                f"{type(self).__name__}: got {list(values.shape)}, expected [B, {expected[0]}, {expected[1]}]"
            )
        return self.ahead(close_gaps(self._standardised(values))) * self.std + self.mean  # [B, H, N]

    def _standardised(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def _learn_scale(self, values: Tensor) -> None:
        total, squares, count = (torch.zeros(len(self.mean), dtype=torch.float64) for _ in range(3))  # [N] each
        for part in values.split(1024):  # no float64 copy of a long series
            total += part.double().nansum(0)
            count += (~part.isnan()).sum(0)
        mean = torch.where(count > 0, total / count, total.sum() / count.sum())
        for part in values.split(1024):
            squares += (part.double() - mean).square().nansum(0)
        std = (squares / count).sqrt()
        typical = std.nanmean()
        std = torch.where(count > 0, std, typical).clamp(min=LEAST_DEVIATION * typical)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))  # 0: no sensor ever moved


def carry_forward(windows: Tensor) -> Tensor:
    """``[B, T, N]`` -> the same shape: NaN becomes the last value before it, and stays where there is none."""
    step = torch.arange(windows.shape[1], device=windows.device)[:, None]  # [T, 1]
    last = torch.where(windows.isnan(), 0, step).cummax(1).values  # [B, T, N]
    return windows.gather(1, last)


def close_gaps(z: Tensor) -> Tensor:
    """Standardised windows ``[B, T, N]`` as ``Baseline.ahead`` wants them."""
    return carry_forward(z).nan_to_num(nan=0.0)
