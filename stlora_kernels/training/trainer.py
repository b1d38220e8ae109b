"""The training loop: masked loss in real units, decay, curriculum, early stopping, the best checkpoint."""

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from stlora_kernels.data import Batch, ForecastData
from stlora_kernels.errors import InputError
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.curriculum import curriculum_steps
from stlora_kernels.training.evaluation import evaluate, forecast
from stlora_kernels.training.loss import forecast_loss
from stlora_kernels.training.metrics import Scores
from stlora_kernels.training.progress import Progress


class NonFiniteLossError(ArithmeticError):
    """The loss is NaN or infinite; the message names the batch."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch did."""

    number: int  # from 1
    train_loss: float  # mean over the batches, in the target's unit (plus the gate's penalty)
    validation: Scores
    learning_rate: float
    seconds: float  # of training, without validation
    counted: int  # steps of the horizon in the last batch's loss


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (weights and dropout; the batches' order has a generator of its own)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (a user's own backbone may draw from it)
    torch.manual_seed(seed)


class Trainer:
    """Trains a model on one data set.

    Args:
        model: already on ``device``; parameters without ``requires_grad`` are left as they are.
        keep: called with the epoch whenever its validation MAE is the best so far.
        progress: shows batches and epochs.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ForecastData,
        config: TrainConfig,
        device: torch.device,
        keep: Callable[[Epoch], None],
        progress: Progress,
    ) -> None:
        self.model, self.data, self.config, self.device = model, data, config, device
        self.keep, self.progress = keep, progress
        self.check: Callable[[], None] | None = None
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self.trained:
            raise InputError("the model has no parameters to train")
        self.recipe = recipe = config.recipe()
        optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        self.optimizer = optimizer(self.trained, recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedulers = torch.optim.lr_scheduler
        self.scheduler: schedulers.LRScheduler = (
            schedulers.StepLR(self.optimizer, recipe.step_size, recipe.gamma)
            if recipe.step_size
            else schedulers.MultiStepLR(self.optimizer, recipe.milestones, recipe.gamma)  # without any: never
        )
        self.steps = 0  # done so far
        self.counted = data.horizon  # steps of the horizon in the last loss
        self.order = torch.Generator().manual_seed(config.seed)
        self.history: list[Epoch] = []
        self.best: Epoch | None = None

    def fit(self, check: Callable[[], None] | None = None) -> Epoch:
        """Train until the last epoch or ``patience`` epochs without a better one; returns the best.

        ``check`` is called before every batch and may raise to stop.

        Raises:
            NonFiniteLossError: if a loss is NaN or infinite.
            InputError: if no validation target is a measurement, so that no epoch can be called the best.
        """
        self.check = check
        for number in range(1, self.recipe.epochs + 1):
            epoch = self.run_epoch(number)
            self.history.append(epoch)
            better = self.best is None or epoch.validation.pooled.mae < self.best.validation.pooled.mae
            if better:
                self.keep(epoch)
                self.best = epoch
            self.progress.say(self._line(epoch, better))
            # Inside the curriculum no epoch has seen all that it is judged by.
            since = max(self.best.number, self._curriculum_end()) if self.best is not None else number
            if number - since >= self.recipe.patience:
                break
        assert self.best is not None  # at least one epoch, and each has a finite validation MAE
        return self.best

    def run_epoch(self, number: int) -> Epoch:
        """One pass over the training windows, then validation."""
        start = time.perf_counter()
        self.model.train()
        losses = [self.step(batch, number, i) for i, batch in enumerate(self._train_batches(number), 1)]
        learning_rate = self.optimizer.param_groups[0]["lr"]
        self.scheduler.step()
        seconds = time.perf_counter() - start
        validation = evaluate(self.model, self.data, self.data.val, self.recipe.batch_size, self.device)
        if validation.pooled.targets == 0:
            raise InputError("validation part: every target is missing, there is nothing to choose the best epoch by")
        if not math.isfinite(validation.pooled.mae):
            raise NonFiniteLossError(f"epoch {number}: the validation MAE is {validation.pooled.mae}")
        return Epoch(number, sum(losses) / len(losses), validation, float(learning_rate), seconds, self.counted)

    def _steps_counted(self) -> int:
        """How many steps of the horizon the loss counts now; as the warm-up ends, the learning rate starts anew."""
        recipe, horizon = self.recipe, self.data.horizon
        if not recipe.curriculum:
            return horizon
        warm = recipe.warmup * self.batches_per_epoch
        if self.steps == warm:
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.learning_rate
        return curriculum_steps(self.steps, warm, recipe.curriculum * self.batches_per_epoch, horizon)

    def _curriculum_end(self) -> int:
        """The epoch before the first in which the loss counts the whole horizon from its first batch on; 0: always."""
        recipe = self.recipe
        return recipe.warmup + recipe.curriculum * (self.data.horizon - 1) if recipe.curriculum else 0

    def _train_batches(self, number: int) -> Iterator[Batch]:
        batches = self.data.train.batches(self.recipe.batch_size, shuffle=True, generator=self.order)
        total = self.batches_per_epoch
        return self.progress.batches(islice(batches, total), total, f"epoch {number}/{self.recipe.epochs}")

    @property
    def batches_per_epoch(self) -> int:
        there = self.data.train.num_batches(self.recipe.batch_size)
        return min(there, self.config.max_batches or there)

    def step(self, batch: Batch, epoch: int, position: int) -> float:
        """One step of the optimizer; returns the loss. Epoch and position, from 1, say where it failed if it does."""
        if self.check is not None:
            self.check()
        counted = self.counted = self._steps_counted()
        prediction, gate = forecast(self.model, batch, self.data, self.device)
        target = batch.y.to(self.device, non_blocking=True)
        loss = forecast_loss(
            prediction[:, :counted],
            target[:, :counted],
            self.data.null_value,
            gate,
            self.config.gate_penalty,
            self.recipe.loss,
        )
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at epoch {epoch}, batch {position} of {self.batches_per_epoch}; "
                "try a smaller --learning-rate"
            )
        self.optimizer.zero_grad()
        loss.backward()
        if self.recipe.clip > 0:
            nn.utils.clip_grad_norm_(self.trained, self.recipe.clip)
        self.optimizer.step()
        self.steps += 1
        return float(loss.detach())

    def _part(self, epoch: Epoch) -> str:
        return f" of {epoch.counted} step(s)" if epoch.counted < self.data.horizon else ""

    def _line(self, epoch: Epoch, better: bool) -> str:
        return (
            f"epoch {epoch.number:{len(str(self.recipe.epochs))}}/{self.recipe.epochs}"
            f"  train {epoch.train_loss:.3f}{self._part(epoch)}  validation MAE {epoch.validation.pooled.mae:.3f}"
            f"  lr {epoch.learning_rate:.3g}  {epoch.seconds:.1f} s{'  best' if better else ''}"
        )
