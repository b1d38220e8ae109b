"""What the hosts of the Triton kernels share: the GPU, a launch's options, how programs share a layer's rows."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from stlora_kernels.ops.gpu import has_seed, may_use_tf32

_PROGRAMS = 4  # per multiprocessor that a launch aims for


def contiguous(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous()


def numerics(x: Tensor, dropout_p: float, seed: Tensor | None, gpu: "Gpu") -> dict[str, Any]:
    """Precision of fp32 products (exact, unless torch may use tf32) and the dropout contract, as kernels take them."""
    on_device = has_seed(x, seed)
    return {
        "threshold": math.ceil(dropout_p * 2**32),
        "scale": 0.0 if dropout_p == 1 else 1 / (1 - dropout_p),
        "seed": 0 if seed is None else seed if on_device else int(seed),
        "SEED_AT": on_device,
        "DROPOUT": dropout_p > 0,
        "ALIGNED": x.shape[-1] % 4 == 0,
        "PRECISION": "tf32" if gpu.has_tf32 and may_use_tf32(x) else "ieee",
    }


@dataclass(frozen=True)
class Share:
    """How programs share a layer's gradients: ``parameter_gradients`` in nall/triton_kernels.py."""

    weight_splits: int  # parts of all rows, summed up for dW and db
    factor_splits: int  # parts of an adapter's rows, for dA and dB
    programs: int
    counters: int
    room: int  # fp32 numbers for the parts

    @property
    def splits(self) -> dict[str, int]:
        return {"WEIGHT_SPLITS": self.weight_splits, "FACTOR_SPLITS": self.factor_splits}


def share(
    device: torch.device, needs: Sequence[bool], M: int, N: int, I: int, O: int, P: int, config: dict[str, int]
) -> Share:
    """Enough programs for the machine, none without a tile of rows; ``needs``: of weight, bias, A and B."""
    BM, BO, BI, R = (config[name] for name in ("BM", "BO", "BI", "R"))
    o_blocks, i_blocks = triton.cdiv(O, BO), max(1, triton.cdiv(I, BI))
    wanted = _PROGRAMS * gpu(device).multiprocessors
    weight_splits, factor_splits = (
        max(1, min(triton.cdiv(rows, BM), wanted // max(1, tiles)))
        for rows, tiles in ((M * N, o_blocks * i_blocks), (M * N // max(1, P), P * max(o_blocks, i_blocks)))
    )
    programs = o_blocks * i_blocks * weight_splits * (needs[0] or needs[1])
    programs += P * factor_splits * (o_blocks * needs[2] + i_blocks * needs[3])
    room = o_blocks * (i_blocks * BI + 1) * weight_splits * BO if weight_splits > 1 else 0
    room += P * (o_blocks * BO + i_blocks * BI) * factor_splits * R if factor_splits > 1 else 0
    return Share(weight_splits, factor_splits, programs, o_blocks * (i_blocks + 1) + P * (o_blocks + i_blocks), room)


@dataclass(frozen=True)
class Gpu:
    multiprocessors: int
    backend: str  # Triton's: cuda or hip
    warp: int  # threads
    has_tf32: bool


@functools.cache
def gpu(device: torch.device) -> Gpu:
    """What sizes a launch on this device, or in the interpreter."""
    if device.type != "cuda":
        return Gpu(multiprocessors=2, backend="cuda", warp=32, has_tf32=True)
    with torch.cuda.device(device):
        target = triton.runtime.driver.active.get_current_target()
    has_tf32 = target.arch >= 80 if target.backend == "cuda" else target.arch.startswith("gfx94")
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return Gpu(multiprocessors, target.backend, target.warp_size, has_tf32)
