"""What a NALL computes, in plain torch; every other backend is compared with this."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stlora_kernels.ops import philox


def activate(y: Tensor, activation: str | None, negative_slope: float) -> Tensor:
    if activation == "relu":
        return F.relu(y)
    if activation == "leaky_relu":
        return F.leaky_relu(y, negative_slope)
    return y


def nall(
    x: Tensor,  # [*, N, I]
    weight: Tensor,  # [O, I]
    bias: Tensor | None,  # [O]
    A: Tensor,  # [P, O, r]
    B: Tensor,  # [P, r, I]
    alpha: float,
    dropout_p: float,
    seed: Tensor | None,  # []
    activation: str | None,
    negative_slope: float,
    node_index: Tensor | None,  # [N]
) -> Tensor:  # [*, N, O]
    """``y[m,n] = act(W x[m,n] + b + alpha * A_n (B_n dropout_p(x[m,n])))``."""
    if node_index is not None:
        A, B = A[node_index], B[node_index]
    low_rank_x = x
    if dropout_p > 0:
        assert seed is not None
        low_rank_x = philox.dropout(x, dropout_p, seed, philox.STREAM_LOW_RANK)
    z = torch.einsum("...ni,nri->...nr", low_rank_x, B)  # [*, N, r]
    y = F.linear(x, weight, bias) + alpha * torch.einsum("...nr,nor->...no", z, A)  # [*, N, O]
    return activate(y, activation, negative_slope)
