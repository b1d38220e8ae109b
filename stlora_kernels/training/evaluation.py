"""Errors of forecasts over a part of the data, summed up batch by batch; no forecast is kept."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stlora_kernels.backbones.times import DAYS_PER_WEEK
from stlora_kernels.baselines import Baseline, HistoricalAverage
from stlora_kernels.data import Batch, ForecastData, Windows
from stlora_kernels.data.missing import valid_mask
from stlora_kernels.nn.checks import check_forecast
from stlora_kernels.nn.stlora import STLoRA
from stlora_kernels.training.distributed import ALONE, Ranks
from stlora_kernels.training.metrics import ScoreMeter, Scores


def forecast(model: nn.Module, batch: Batch, data: ForecastData, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The model's forecast in real units ``[B, H, N, 1]``, and the gate if it has one.

    Raises:
        InputError: if what a backbone of the user's own returns is not standardised values ``[B, H, N, 1]``.
    """
    x = batch.x.to(device, non_blocking=True)
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    y, gate = model(x, return_gate=True) if isinstance(inner, STLoRA) else (model(x), None)
    check_forecast(y, [len(x), data.horizon, data.num_nodes, data.out_features])
    whole = torch.promote_types(y.dtype, torch.float32)  # bf16 knows a flow of 400 only to the nearest 2
    return data.scaler.inverse_transform(y.to(whole)), gate


@torch.no_grad()
def evaluate(
    model: nn.Module, data: ForecastData, part: Windows, batch_size: int, device: torch.device, ranks: Ranks = ALONE
) -> Scores:
    """The errors of a model or a fitted baseline over all windows of a part; the model is left in eval mode.

    Of several processes each forecasts its share of every batch, and all get the errors over everything.
    """
    model.eval()
    if isinstance(model, Baseline):
        return _evaluate_baseline(model, data, part, batch_size, device)
    meter = ScoreMeter(data.horizon, data.null_value, device)
    for batch in part.batches(batch_size, share=ranks.part):
        prediction, _ = forecast(model, batch, data, device)
        meter.update(prediction, batch.y.to(device))
    ranks.sum(meter.sums)
    return meter.compute()


def measured_values(data: ForecastData) -> Tensor:
    """What baselines see: ``[S, N]`` in real units, NaN where missing, be it NaN or the null value."""
    values = torch.from_numpy(data.data.values[:, :, 0])
    return values.masked_fill(~valid_mask(values, data.null_value), torch.nan)


def training_steps(data: ForecastData) -> range:
    """What baselines learn from: all steps that the training windows read, as inputs or as targets."""
    return range(data.train.start, data.train.stop + data.window + data.horizon - 1)


def evaluate_ha(data: ForecastData, part: Windows, batch_size: int = 64) -> dict[str, Scores]:
    """The errors of the three HA variants on the very windows and targets of a part, by name."""
    step_of_day, day_of_week = torch.from_numpy(data.data.calendar()).unbind(1)
    slot = step_of_day * DAYS_PER_WEEK + day_of_week  # [S]
    ha = HistoricalAverage(measured_values(data), slot, training_steps(data), data.window, data.horizon)
    return _evaluate_each(ha.variants(), data, part, batch_size)


def _evaluate_baseline(
    model: Baseline, data: ForecastData, part: Windows, batch_size: int, device: torch.device
) -> Scores:
    values, window = measured_values(data), torch.arange(data.window)

    def from_windows(start: Tensor) -> Tensor:
        return model(values[start[:, None] + window].to(device)).cpu()

    (scores,) = _evaluate_each({"": from_windows}, data, part, batch_size).values()
    return scores


def _evaluate_each(
    forecasts: Mapping[str, Callable[[Tensor], Tensor]], data: ForecastData, part: Windows, batch_size: int
) -> dict[str, Scores]:
    """By name, the errors of forecasts that map first steps of windows, int64 ``[B]``, to real units ``[B, H, N]``."""
    meters = {name: ScoreMeter(data.horizon, data.null_value) for name in forecasts}
    for indices in torch.arange(len(part)).split(batch_size):
        target = part.gather(indices).y.cpu()  # [B, H, N, 1]
        for name, ahead in forecasts.items():
            meters[name].update(ahead(part.start + indices).unsqueeze(-1), target)
    return {name: meter.compute() for name, meter in meters.items()}
