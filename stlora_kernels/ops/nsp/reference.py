"""What a residual NSP layer and a stack of them compute, in plain torch; every other backend is compared with this."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from stlora_kernels.ops import philox
from stlora_kernels.ops.nall import reference


def nsp_stack(
    h: Tensor,  # [*, N, D]
    norm_weights: Sequence[Tensor],  # L x [D]
    weights: Sequence[Tensor],  # L x [D, D]
    biases: Sequence[Tensor],  # L x [D], or empty
    As: Sequence[Tensor],  # L x [P, D, r]
    Bs: Sequence[Tensor],  # L x [P, r, D]
    alpha: float,
    eps: float,
    negative_slope: float,
    dropout_p: float,
    seed: Tensor | None,  # []
    node_index: Tensor | None,  # [N]
) -> Tensor:  # [*, N, D]
    """``h_l+1 = h_l + NALL_l(dropout(leaky_relu(rms_norm(h_l))))`` for every layer l."""
    for layer, (norm_weight, weight, A, B) in enumerate(zip(norm_weights, weights, As, Bs, strict=True)):
        s = F.leaky_relu(F.rms_norm(h, norm_weight.shape, norm_weight, eps), negative_slope)
        if dropout_p > 0:
            assert seed is not None
            s = philox.dropout(s, dropout_p, seed, philox.STREAM_SIGMA, layer)
        bias = biases[layer] if biases else None
        h = h + reference.nall(s, weight, bias, A, B, alpha, 0.0, None, None, 0.0, node_index)
    return h
