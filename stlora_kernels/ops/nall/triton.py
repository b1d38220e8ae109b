"""NALL in Triton: hands tensors to the kernels of ``triton_kernels.py``, one launch forward and one backward."""

import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from stlora_kernels.ops.nall import triton_kernels
from stlora_kernels.ops.nall.cpu import empty_gradients, flatten

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_RANK = 128
_SHARE = 4  # programs per multiprocessor that a launch aims for


def why_not(x: Tensor, B: Tensor) -> str | None:
    """Why these kernels do not cover a call, or None if they do."""
    if x.dtype not in DTYPES:
        return f"dtype {x.dtype} has no Triton kernel"
    return f"rank {B.shape[1]} is beyond {MAX_RANK}" if B.shape[1] > MAX_RANK else None


def blocks(dtype: torch.dtype, rank: int, backward: bool) -> dict[str, int]:
    """Tile sizes and warps: blocks are powers of two from 16 on, as tensor cores take them.

    64 rows and columns are what registers hold beside the low-rank code; fp32, which they hold half as much of, takes
    half the block. Four warps spill in fp32 (sm_86, sm_89) and in the backward pass (fp32 on sm_80, bf16 on sm_100).
    """
    single = dtype == torch.float32
    R = max(16, triton.next_power_of_2(rank))
    size = 32 if single else 64
    return {"BM": 64, "BO": size, "BI": size, "R": R, "num_warps": 8 if single or backward else 4, "num_stages": 2}


def precision() -> str:
    """Of fp32 products: exact, unless torch may use tf32."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


@functools.cache
def _counters(device: torch.device, stream: int, size: int) -> Tensor:
    """Zeros, which every launch leaves as it found them; one set per stream, whose launches follow one another."""
    return torch.zeros(size, dtype=torch.int32, device=device)


def _options(dropout_p: float, seed: Tensor | None, x: Tensor, activation: str, tile: dict[str, int]) -> dict[str, Any]:
    I = x.shape[-1]
    return {
        "threshold": math.ceil(dropout_p * 2**32),
        "scale": 0.0 if dropout_p == 1 else 1 / (1 - dropout_p),
        "seed": 0 if seed is None else seed if seed.device == x.device and x.is_cuda else int(seed),
        "SEED_AT": seed is not None and seed.device == x.device and x.is_cuda,
        "DROPOUT": dropout_p > 0,
        "ALIGNED": I % 4 == 0,
        "ACTIVATION": activation,
        "PRECISION": precision(),
        **tile,
    }


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, seed: Tensor | None,
    node_index: Tensor | None, alpha: float, dropout_p: float, activation: str, negative_slope: float,
) -> Tensor:  # fmt: skip
    """See :func:`stlora_kernels.ops.nall.reference.nall`; returns a contiguous ``[*, N, O]``."""
    y = x.new_empty(*x.shape[:-1], weight.shape[0])
    x3 = flatten(x)
    M, N, I = x3.shape
    O, r = weight.shape[0], A.shape[2]
    if y.numel() == 0:
        return y
    index = None if node_index is None else node_index.contiguous()
    tile = blocks(x.dtype, r, backward=False)
    grid = (N * triton.cdiv(M, tile["BM"]), triton.cdiv(O, tile["BO"]))
    with _on(x):
        triton_kernels.forward[grid](
            x3, weight.contiguous(), bias if bias is None else bias.contiguous(), A.contiguous(), B.contiguous(),
            node_index=index, y=y, M=M, N=N, I=I, O=O, r=r, x_m=x3.stride(0), x_n=x3.stride(1), x_i=x3.stride(2),
            alpha=alpha, slope=negative_slope, HAS_BIAS=bias is not None, HAS_INDEX=node_index is not None,
            **_options(dropout_p, seed, x, activation, tile),
        )  # fmt: skip
    return y


def backward(
    grad: Tensor, y: Tensor | None, needs: Sequence[bool], x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor,
    B: Tensor, seed: Tensor | None, node_index: Tensor | None, alpha: float, dropout_p: float, activation: str,
    negative_slope: float,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of x, weight, bias, A, B; None for one that is not needed."""
    gradients = empty_gradients((x, weight, weight if bias is None else bias, A, B), needs)
    x3, g3 = flatten(x), flatten(grad)
    (M, N, I), (P, O, r) = x3.shape, A.shape
    index = None if node_index is None else node_index.contiguous()
    tile = blocks(x.dtype, r, backward=True)
    BM, BO, BI, R = (tile[name] for name in ("BM", "BO", "BI", "R"))
    o_blocks, i_blocks = triton.cdiv(O, BO), triton.cdiv(I, BI)
    wanted = _SHARE * _multiprocessors(x.device)
    splits = [  # enough programs for the machine, none without a tile of rows
        max(1, min(triton.cdiv(rows, BM), wanted // max(1, tiles)))
        for rows, tiles in ((M * N, o_blocks * i_blocks), (M * N // max(1, P), P * max(o_blocks, i_blocks)))
    ]
    weight_splits, factor_splits = splits
    tiles = o_blocks * (i_blocks + 1) + P * (o_blocks + i_blocks)
    room = o_blocks * (i_blocks * BI + 1) * weight_splits * BO + P * (o_blocks * BO + i_blocks * BI) * factor_splits * R
    programs = o_blocks * i_blocks * weight_splits * (needs[1] or needs[2])
    programs += P * factor_splits * (o_blocks * needs[3] + i_blocks * needs[4])
    programs += N * triton.cdiv(M, BM) * i_blocks * needs[0]
    if programs == 0:
        return gradients
    order = first_slot = None
    if node_index is not None:
        order = torch.argsort(node_index, stable=True)
        first_slot = torch.searchsorted(node_index[order], torch.arange(P + 1, device=x.device))
    stream = torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0
    with _on(x):
        triton_kernels.backward[(programs,)](
            g3, y, x3, weight.contiguous(), A.contiguous(), B.contiguous(), node_index=index, order=order,
            first_slot=first_slot, dx=gradients[0], dweight=gradients[1], dbias=gradients[2], dA=gradients[3],
            dB=gradients[4], workspace=torch.empty(room, dtype=torch.float32, device=x.device),
            counters=_counters(x.device, stream, triton.next_power_of_2(tiles)),
            M=M, N=N, I=I, O=O, P=P, r=r, g_m=g3.stride(0), g_n=g3.stride(1), g_o=g3.stride(2),
            x_m=x3.stride(0), x_n=x3.stride(1), x_i=x3.stride(2), alpha=alpha, slope=negative_slope,
            HAS_INDEX=node_index is not None, NEEDS_X=needs[0], NEEDS_WEIGHT=needs[1], NEEDS_BIAS=needs[2],
            NEEDS_A=needs[3], NEEDS_B=needs[4], WEIGHT_SPLITS=weight_splits, FACTOR_SPLITS=factor_splits,
            **_options(dropout_p, seed, x, activation, tile),
        )  # fmt: skip
    return gradients


def _on(x: Tensor) -> Any:
    """Triton launches on the current device and its current stream."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
