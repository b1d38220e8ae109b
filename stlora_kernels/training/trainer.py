"""The training loop: masked loss in real units, decay, curriculum, early stopping, the best checkpoint."""

import math
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stlora_kernels.data import Batch, ForecastData
from stlora_kernels.data.missing import valid_mask
from stlora_kernels.errors import InputError
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.curriculum import curriculum_steps
from stlora_kernels.training.distributed import ALONE, Ranks
from stlora_kernels.training.epoch import Epoch, Position
from stlora_kernels.training.evaluation import evaluate, forecast
from stlora_kernels.training.loss import forecast_loss
from stlora_kernels.training.progress import Progress

RANK_SEEDS = 10**6  # between the seeds of two processes


class NonFiniteLossError(ArithmeticError):
    """The loss is NaN or infinite; the message names the batch."""


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (weights and dropout; the batches' order has a generator of its own)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (a user's own backbone may draw from it)
    torch.manual_seed(seed)


def seed_part(seed: int, ranks: Ranks, steps: int = 0) -> None:
    """Where processes share batches, let all but the first draw a dropout of their own, for their own windows."""
    part, _ = ranks.part
    if part:
        torch.manual_seed(seed + part * RANK_SEEDS + steps)


class Trainer:
    """Trains a model on one data set.

    Args:
        model: already on ``device``; parameters without ``requires_grad`` are left as they are.
        keep: called with the epoch whenever its validation MAE is the best so far; what it was measured with is
            ``evaluated``.
        progress: shows batches and epochs.
        save: called after every epoch, and every ``save_minutes`` inside one, to keep the state (``state.take``).
        ranks: the processes that train together; each gets its share of every batch, and validates its share.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ForecastData,
        config: TrainConfig,
        device: torch.device,
        keep: Callable[[Epoch], None],
        progress: Progress,
        save: Callable[[], None] = lambda: None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.data, self.config, self.device, self.ranks = model, data, config, device, ranks
        self.keep, self.progress, self.save = keep, progress, save
        self.check: Callable[[], None] | None = None
        self.parallel = ranks.parallel(model)
        seed_part(config.seed, ranks)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self.trained:
            raise InputError("the model has no parameters to train")
        if config.compile:
            model.compile()
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
        self.recipe = recipe = config.recipe()
        optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        # A group each for what is whole and what is sharded: torch computes with either, and not with both at once.
        kinds = [[p for p in self.trained if isinstance(p, DTensor) is sharded] for sharded in (False, True)]
        groups: list[dict[str, Any]] = [{"params": parameters} for parameters in kinds if parameters]
        self.optimizer = optimizer(groups, recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedulers = torch.optim.lr_scheduler
        self.scheduler: schedulers.LRScheduler = (
            schedulers.StepLR(self.optimizer, recipe.step_size, recipe.gamma)
            if recipe.step_size
            else schedulers.MultiStepLR(self.optimizer, recipe.milestones, recipe.gamma)  # without any: never
        )
        self.steps = 0  # done so far
        self.counted = data.horizon  # steps of the horizon in the last loss
        self.order = torch.Generator().manual_seed(config.seed)
        self.order_at_start = self.order.get_state()  # of the epoch under way
        self.position = Position()
        self.history: list[Epoch] = []
        self.best: Epoch | None = None

    @property
    def evaluated(self) -> nn.Module:
        """What validation measures and ``keep`` keeps: the model, or the average of its weights."""
        return self.model if self.average is None else self.average.module

    def fit(self, check: Callable[[], None] | None = None) -> Epoch:
        """Train until the last epoch or ``patience`` epochs without a better one; returns the best.

        ``check`` is called before every batch and may raise to stop.

        Raises:
            NonFiniteLossError: if a loss is NaN or infinite.
            InputError: if no validation target is a measurement, so that no epoch can be called the best.
        """
        self.check = check
        while not self._is_finished():
            epoch = self.run_epoch(len(self.history) + 1)
            self.history.append(epoch)
            better = self.best is None or epoch.validation.pooled.mae < self.best.validation.pooled.mae
            if better:
                self.keep(epoch)
                self.best = epoch
            self.save()
            self.progress.say(self._line(epoch, better))
        assert self.best is not None  # at least one epoch, and each has a finite validation MAE
        return self.best

    def _is_finished(self) -> bool:
        number = len(self.history)
        # Inside the curriculum no epoch has seen all that it is judged by.
        since = max(self.best.number, self._curriculum_end()) if self.best is not None else number
        return number > 0 and (number >= self.recipe.epochs or number - since >= self.recipe.patience)

    def run_epoch(self, number: int) -> Epoch:
        """One pass over the training windows, or what is left of it, then validation."""
        position, total = self.position, self.batches_per_epoch
        self.model.train()
        started = saved = time.perf_counter()
        before = position.seconds
        for batch in self._train_batches(number):
            position.loss += self.step(batch, number, position.batches + 1)
            position.batches += 1
            now = time.perf_counter()
            position.seconds = before + now - started
            if position.batches < total and self.ranks.agreed(now - saved >= 60 * self.config.save_minutes):
                self.save()
                saved = now
        learning_rate = self.optimizer.param_groups[0]["lr"]
        self.scheduler.step()
        validation = evaluate(self.evaluated, self.data, self.data.val, self.recipe.batch_size, self.device, self.ranks)
        if validation.pooled.targets == 0:
            raise InputError("validation part: every target is missing, there is nothing to choose the best epoch by")
        if not math.isfinite(validation.pooled.mae):
            raise NonFiniteLossError(f"epoch {number}: the validation MAE is {validation.pooled.mae}")
        self.position = Position()
        mean = position.loss / position.batches
        return Epoch(number, mean, validation, float(learning_rate), position.seconds, self.counted)

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
        first = self.position.batches
        self.order_at_start = self.order.get_state()
        size, part = self.recipe.batch_size, self.ranks.part
        batches = self.data.train.batches(size, shuffle=True, generator=self.order, first=first, share=part)
        left = self.batches_per_epoch - first
        return self.progress.batches(islice(batches, left), left, f"epoch {number}/{self.recipe.epochs}")

    @property
    def batches_per_epoch(self) -> int:
        there = self.data.train.num_batches(self.recipe.batch_size)
        return min(there, self.config.max_batches or there)

    def step(self, batch: Batch, epoch: int, position: int) -> float:
        """One step of the optimizer; returns the loss. Epoch and position, from 1, say where it failed if it does.

        The gradient is that of the loss over the whole batch, however many processes share it (of which this one has
        ``batch``) and in however many pieces each takes its part.
        """
        if self.check is not None:
            self.check()
        counted = self.counted = self._steps_counted()
        valid = valid_mask(batch.y[:, :counted], self.data.null_value)  # [B, H', N, 1]
        windows = min(self.recipe.batch_size, len(self.data.train) - (position - 1) * self.recipe.batch_size)
        rank, parts = self.ranks.part
        stands_in = rank >= windows  # for a window that this process has not, see Windows.batches
        targets = max(self.ranks.sum(valid.sum()).item(), 1)
        size = -(-len(batch.y) // self.config.accumulate)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.optimizer.zero_grad()
        for start in range(0, len(batch.y), size):
            rows = slice(start, start + size)
            of_targets = valid[rows].sum().item() / targets
            of_windows = 0.0 if stands_in else len(batch.y[rows]) / windows
            part = self._loss(batch, rows, of_targets, of_windows)
            (parts * part).backward()  # of which the mean over the processes is taken
            loss += part.detach()
        self.ranks.sum(loss)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at epoch {epoch}, batch {position} of {self.batches_per_epoch}; "
                "try a smaller --learning-rate"
            )
        if self.recipe.clip > 0:
            self._clip()
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.steps += 1
        return float(loss)

    def _clip(self) -> None:
        """Bring the norm of all gradients together down to ``clip``."""
        norms = [
            nn.utils.get_total_norm([p.grad for p in group["params"] if p.grad is not None])
            for group in self.optimizer.param_groups
        ]
        norm = torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]).norm()
        for group in self.optimizer.param_groups:
            nn.utils.clip_grads_with_norm_(group["params"], self.recipe.clip, norm)

    def _loss(self, batch: Batch, rows: slice, of_targets: float, of_windows: float) -> Tensor:
        """The loss of some windows of a batch, with these shares in that of the whole batch."""
        counted = self.counted
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp == "bf16"):
            prediction, gate = forecast(self.parallel, Batch(*(part[rows] for part in batch)), self.data, self.device)
        target = batch.y[rows].to(self.device, non_blocking=True)
        return forecast_loss(
            prediction[:, :counted],
            target[:, :counted],
            self.data.null_value,
            gate,
            self.config.gate_penalty,
            self.recipe.loss,
            of_targets,
            of_windows,
        )

    def _part(self, epoch: Epoch) -> str:
        return f" of {epoch.counted} step(s)" if epoch.counted < self.data.horizon else ""

    def _line(self, epoch: Epoch, better: bool) -> str:
        return (
            f"epoch {epoch.number:{len(str(self.recipe.epochs))}}/{self.recipe.epochs}"
            f"  train {epoch.train_loss:.3f}{self._part(epoch)}  validation MAE {epoch.validation.pooled.mae:.3f}"
            f"  lr {epoch.learning_rate:.3g}  {epoch.seconds:.1f} s{'  best' if better else ''}"
        )
