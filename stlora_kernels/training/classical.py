"""Fitting a baseline that learns, where a backbone would be trained."""

import time
from dataclasses import dataclass

import torch

from stlora_kernels.baselines import Baseline
from stlora_kernels.data import ForecastData
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.evaluation import evaluate, measured_values, training_steps
from stlora_kernels.training.metrics import Scores


@dataclass(frozen=True)
class Fit:
    """What one fit did."""

    how: str
    seconds: float  # without validation
    validation: Scores

    def line(self) -> str:
        return f"Fit: {self.how}, {self.seconds:.1f} s, validation MAE {self.validation.pooled.mae:.3f}"


def fit_baseline(model: Baseline, data: ForecastData, config: TrainConfig, device: torch.device) -> Fit:
    """Fit to the training steps alone, on the CPU, and measure on the validation part, with the model on ``device``.

    Raises:
        InputError: if the training steps hold too little to learn from.
        MissingExtraError: if the baseline needs a package that is not installed.
    """
    steps = training_steps(data)
    start = time.perf_counter()
    how = model.cpu().fit(measured_values(data)[steps.start : steps.stop], config.seed)
    seconds = time.perf_counter() - start
    return Fit(how, seconds, evaluate(model.to(device), data, data.val, config.recipe().batch_size, device))
