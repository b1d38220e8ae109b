"""Historical average: the three forecasts that go by this name.

- "HA (weekly slot)": the mean of the same time of the same day of the week over the training part.
- "HA (window mean)": the mean of the input window, for every step ahead.
- "HA (last value)": the last value of the input window, for every step ahead.

Missing values (NaN, and the null value of the data) enter none of them. Where a sensor has no measurement in a
weekly slot, or none in a window, the mean of all its training values stands in; for a sensor without any, the mean of
all sensors' training values.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from stlora_kernels.data import ForecastData, Windows
from stlora_kernels.training.metrics import ScoreMeter, Scores, valid_mask

DAYS_PER_WEEK = 7


class HistoricalAverage:
    """The three forecasts on one data set, in real units.

    Training values are all steps that training windows read, inputs and targets.
    """

    def __init__(self, data: ForecastData) -> None:
        self.window, self.horizon, self.null_value = data.window, data.horizon, data.null_value
        self.values = torch.from_numpy(np.ascontiguousarray(data.data.values[:, :, 0]))  # [S, N]
        step_of_day, day_of_week = torch.from_numpy(data.data.calendar()).unbind(1)
        self.slot = day_of_week * data.data.steps_per_day + step_of_day  # [S]
        slots = DAYS_PER_WEEK * data.data.steps_per_day
        self.slot_mean = self._slot_means(data.train, slots)  # [slots, N]

    def _slot_means(self, train: Windows, slots: int) -> Tensor:
        total = torch.zeros(slots, self.values.shape[1], dtype=torch.float64)  # [slots, N]
        count = torch.zeros_like(total)
        steps = torch.arange(train.start, train.stop + self.window + self.horizon - 1)
        for chunk in steps.split(1024):  # no second copy of a long series
            valid = valid_mask(self.values[chunk], self.null_value)
            total.index_add_(0, self.slot[chunk], torch.where(valid, self.values[chunk], 0.0).double())
            count.index_add_(0, self.slot[chunk], valid.double())
        overall = total.sum() / count.sum()  # NaN if nothing at all was measured
        of_sensor = torch.where(count.sum(0) > 0, total.sum(0) / count.sum(0), overall)  # [N]
        self.sensor_mean = of_sensor.float()
        return torch.where(count > 0, total / count, of_sensor).float()

    def weekly_slot(self, windows: Tensor) -> Tensor:
        """Windows, by the step they begin at, int64 ``[B]`` -> ``[B, H, N, 1]``."""
        ahead = windows[:, None] + self.window + torch.arange(self.horizon)  # [B, H]
        return self.slot_mean[self.slot[ahead]].unsqueeze(-1)

    def window_mean(self, windows: Tensor) -> Tensor:
        """``[B]`` -> ``[B, H, N, 1]``."""
        values, valid = self._inputs(windows)
        count = valid.sum(1)  # [B, N]
        mean = torch.where(valid, values, 0.0).sum(1) / count
        return self._constant(torch.where(count > 0, mean, self.sensor_mean))

    def last_value(self, windows: Tensor) -> Tensor:
        """The last value that is not missing, ``[B]`` -> ``[B, H, N, 1]``."""
        values, valid = self._inputs(windows)
        steps = torch.arange(1, self.window + 1)[:, None]  # [T, 1]
        last = (valid * steps).amax(1, keepdim=True)  # [B, 1, N], 0 if there is none
        value = values.gather(1, (last - 1).clamp(min=0)).squeeze(1)  # [B, N]
        return self._constant(torch.where(last.squeeze(1) > 0, value, self.sensor_mean))

    def _inputs(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        values = self.values[windows[:, None] + torch.arange(self.window)]  # [B, T, N]
        return values, valid_mask(values, self.null_value)

    def _constant(self, level: Tensor) -> Tensor:
        return level[:, None, :, None].expand(-1, self.horizon, -1, -1)  # [B, H, N, 1]

    def variants(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The forecasts by the names they have in tables."""
        return {
            "HA (weekly slot)": self.weekly_slot,
            "HA (window mean)": self.window_mean,
            "HA (last value)": self.last_value,
        }


def evaluate_ha(data: ForecastData, part: Windows, batch_size: int = 64) -> dict[str, Scores]:
    """The errors of all three on the very windows and targets of a part, by name."""
    variants = HistoricalAverage(data).variants()
    meters = {name: ScoreMeter(data.horizon, data.null_value) for name in variants}
    for indices in torch.arange(len(part)).split(batch_size):
        target = part.gather(indices).y
        for name, forecast in variants.items():
            meters[name].update(forecast(part.start + indices), target)
    return {name: meter.compute() for name, meter in meters.items()}
