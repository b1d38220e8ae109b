"""Historical average: the three forecasts that go by this name.

- "HA (weekly slot)": the mean of the same time of the same day of the week over the training part.
- "HA (window mean)": the mean of the input window, for every step ahead.
- "HA (last value)": the last value of the input window, for every step ahead.

Missing values enter none of them. Where a sensor has no training value in a weekly slot, or no value at all in a
window, the mean of its training values stands in; for a sensor without any, the mean of all sensors' training values.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stlora_kernels.baselines.base import carry_forward


class HistoricalAverage:
    """The three forecasts for one series, in real units.

    Args:
        values: ``[S, N]``, NaN where missing.
        slot: int64 ``[S]``, which slot of the week each step is in, from 0.
        train: the steps whose values are known from training.
        window: T input steps. horizon: H steps to forecast.
    """

    def __init__(self, values: Tensor, slot: Tensor, train: range, window: int, horizon: int) -> None:
        self.values, self.slot, self.window, self.horizon = values, slot, window, horizon
        slots = int(slot.max()) + 1
        total = torch.zeros(slots, values.shape[1], dtype=torch.float64)  # [slots, N]
        count = torch.zeros_like(total)
        for steps in torch.arange(train.start, train.stop).split(1024):  # no float64 copy of a long series
            total.index_add_(0, slot[steps], values[steps].nan_to_num(0.0).double())
            count.index_add_(0, slot[steps], (~values[steps].isnan()).double())
        overall = total.sum() / count.sum()  # NaN if nothing was measured at all
        mean = total.sum(0) / count.sum(0)  # [N]
        mean = torch.where(mean.isnan(), overall, mean)
        self.sensor_mean = mean.float()  # [N]
        self.slot_mean = torch.where(count > 0, total / count, mean).float()  # [slots, N]

    def weekly_slot(self, start: Tensor) -> Tensor:
        """For the windows that begin at the steps ``start``, int64 ``[B]``: ``[B, H, N]``."""
        ahead = start[:, None] + self.window + torch.arange(self.horizon)  # [B, H]
        return self.slot_mean[self.slot[ahead]]

    def window_mean(self, start: Tensor) -> Tensor:
        """``[B]`` -> ``[B, H, N]``."""
        return self._constant(self._inputs(start).nanmean(1))

    def last_value(self, start: Tensor) -> Tensor:
        """``[B]`` -> ``[B, H, N]``: the last value of the window that is not missing."""
        return self._constant(carry_forward(self._inputs(start))[:, -1])

    def variants(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The forecasts by the names they have in tables."""
        return {
            "HA (weekly slot)": self.weekly_slot,
            "HA (window mean)": self.window_mean,
            "HA (last value)": self.last_value,
        }

    def _inputs(self, start: Tensor) -> Tensor:
        return self.values[start[:, None] + torch.arange(self.window)]  # [B, T, N]

    def _constant(self, level: Tensor) -> Tensor:
        level = torch.where(level.isnan(), self.sensor_mean, level)  # [B, N]
        return level[:, None].expand(-1, self.horizon, -1)  # [B, H, N]
