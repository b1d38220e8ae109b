"""Errors of forecasts over a part of the data, summed up batch by batch; no forecast is kept."""

import torch
from torch import Tensor, nn

from stlora_kernels.baselines import HistoricalAverage
from stlora_kernels.data import Batch, ForecastData, Windows
from stlora_kernels.nn.stlora import STLoRA
from stlora_kernels.training.metrics import ScoreMeter, Scores, valid_mask

DAYS_PER_WEEK = 7


def forecast(model: nn.Module, batch: Batch, data: ForecastData, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The model's forecast in real units ``[B, H, N, 1]``, and the gate if it has one."""
    x = batch.x.to(device, non_blocking=True)
    y, gate = model(x, return_gate=True) if isinstance(model, STLoRA) else (model(x), None)
    return data.scaler.inverse_transform(y), gate


@torch.no_grad()
def evaluate(model: nn.Module, data: ForecastData, part: Windows, batch_size: int, device: torch.device) -> Scores:
    """The model's errors over all windows of a part; the model is left in eval mode."""
    model.eval()
    meter = ScoreMeter(data.horizon, data.null_value, device)
    for batch in part.batches(batch_size):
        prediction, _ = forecast(model, batch, data, device)
        meter.update(prediction, batch.y.to(device))
    return meter.compute()


def evaluate_ha(data: ForecastData, part: Windows, batch_size: int = 64) -> dict[str, Scores]:
    """The errors of the three HA variants on the very windows and targets of a part, by name.

    HA's training values are all steps that the training windows read, as inputs or as targets.
    """
    values = torch.from_numpy(data.data.values[:, :, 0])  # [S, N]
    values = values.masked_fill(~valid_mask(values, data.null_value), torch.nan)
    step_of_day, day_of_week = torch.from_numpy(data.data.calendar()).unbind(1)
    slot = step_of_day * DAYS_PER_WEEK + day_of_week  # [S]
    train = range(data.train.start, data.train.stop + data.window + data.horizon - 1)
    variants = HistoricalAverage(values, slot, train, data.window, data.horizon).variants()
    meters = {name: ScoreMeter(data.horizon, data.null_value) for name in variants}
    for indices in torch.arange(len(part)).split(batch_size):
        target = part.gather(indices).y  # [B, H, N, 1]
        for name, variant in variants.items():
            meters[name].update(variant(part.start + indices).unsqueeze(-1), target)
    return {name: meter.compute() for name, meter in meters.items()}
