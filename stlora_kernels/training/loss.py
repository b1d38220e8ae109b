"""The training objective, eq. (5) of the ST-LoRA paper (arXiv 2404.07919)."""

import torch
from torch import Tensor

from stlora_kernels.training.metrics import valid_mask


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
    valid = valid_mask(target, null_value)
    # The mask comes before the absolute value: a NaN target must not reach the gradient.
    error = torch.where(valid, prediction - target, 0.0).abs()
    return error.sum() / valid.sum().clamp(min=1)


def forecast_loss(
    prediction: Tensor,
    target: Tensor,
    null_value: float | None,
    gate: Tensor | None = None,
    gate_penalty: float = 0.0,
) -> Tensor:
    """``masked_mae(prediction, target) + gate_penalty * mean(R^2)``, eq. (5).

    Args:
        prediction: ``[B, H, N, C]``, real units.
        target: ``[B, H, N, C]``, real units.
        null_value: the value that means "missing"; ``None``: only NaN does.
        gate: ``R`` of eq. (4), the share of the backbone in the fused forecast; ``None`` without an adapter.
        gate_penalty: the paper's lambda, >= 0.
    """
    loss = masked_mae(prediction, target, null_value)
    if gate is not None and gate_penalty > 0:
        loss = loss + gate_penalty * gate.square().mean()
    return loss
