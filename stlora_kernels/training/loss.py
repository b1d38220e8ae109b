"""The training objective, eq. (5) of the ST-LoRA paper (arXiv 2404.07919)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stlora_kernels.data.missing import valid_mask
from stlora_kernels.training.published import Loss


def masked_mae(prediction: Tensor, target: Tensor, null_value: float | None) -> Tensor:
    """Mean of ``|prediction - target|`` over the measured targets (see :func:`valid_mask`).

    Args:
        prediction: any shape, real units (inverse-transformed).
        target: the same shape, real units as they were read; inverse-transforming scaled targets instead
            would turn a missing 0 into 1e-6 and slip it past the mask.
        null_value: the value that means "missing"; ``None``: only NaN does.

    Returns:
        A scalar; 0 with zero gradients when nothing is measured, so that such a batch changes nothing.
    """
    error, valid = _errors(prediction, target, null_value)
    return _mean(error.abs(), valid)


def masked_huber(prediction: Tensor, target: Tensor, null_value: float | None) -> Tensor:
    """The same of Huber's function, ``e^2 / 2`` below an error e of one unit and ``|e| - 1/2`` above."""
    error, valid = _errors(prediction, target, null_value)
    return _mean(F.huber_loss(error, torch.zeros_like(error), reduction="none"), valid)


def _errors(prediction: Tensor, target: Tensor, null_value: float | None) -> tuple[Tensor, Tensor]:
    valid = valid_mask(target, null_value)
    # The mask comes before any function of the error: a NaN target must not reach the gradient.
    return torch.where(valid, prediction - target, 0.0), valid


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return values.sum() / valid.sum().clamp(min=1)


LOSSES = {"mae": masked_mae, "huber": masked_huber}


def forecast_loss(
    prediction: Tensor,
    target: Tensor,
    null_value: float | None,
    gate: Tensor | None = None,
    gate_penalty: float = 0.0,
    loss: Loss = "mae",
    of_targets: float = 1.0,
    of_windows: float = 1.0,
) -> Tensor:
    """``masked_mae(prediction, target) + gate_penalty * mean(R^2)``, eq. (5).

    Args:
        prediction: ``[B, H, N, C]``, real units.
        target: ``[B, H, N, C]``, real units.
        null_value: the value that means "missing"; ``None``: only NaN does.
        gate: ``R`` of eq. (4), the share of the backbone in the fused forecast; ``None`` without an adapter.
        gate_penalty: the paper's lambda, >= 0.
        loss: "huber" for :func:`masked_huber` in place of the paper's.
        of_targets, of_windows: where these windows are a part of a batch, their share in its measured targets and in
            its windows; the sum over the parts is then the loss of the batch.
    """
    total = of_targets * LOSSES[loss](prediction, target, null_value)
    if gate is not None and gate_penalty > 0:
        total = total + of_windows * gate_penalty * gate.square().mean()
    return total
