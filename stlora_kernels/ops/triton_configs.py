"""Tiles, threads and stages of the Triton kernels: a small table, and a tuner for who wants to look further.

The table's entries are the largest tiles that no architecture spills with, found by compiling for each
(``bench/triton_static.py``); small problems get smaller tiles. ``STLORA_TRITON_AUTOTUNE=1`` times neighbours of an
entry at the first call with a shape and keeps the fastest, for this process.
"""

import functools
import logging
import os
from collections.abc import Callable, Hashable

import torch
import triton
from torch import Tensor

from stlora_kernels.ops.triton_launch import Gpu

log = logging.getLogger("stlora_kernels")
Config = dict[str, int]

# Per kernel and bytes per number. Exact fp32 products have no tensor core; threads hold what they multiply.
# ptxas would rather spill a little than halve the programs that fit, unless it is told how many registers there are.
_PARAMETERS = {2: {"BM": 64, "BO": 64, "BI": 64}, 4: {"BM": 64, "BO": 32, "BI": 32}}
_TABLE: dict[tuple[str, int], Config] = {
    ("nall forward", 2): {"BM": 64, "BO": 64, "BI": 64, "threads": 128, "num_stages": 2},
    ("nall forward", 4): {"BM": 64, "BO": 32, "BI": 32, "threads": 256, "num_stages": 1, "maxnreg": 255},
    ("nall backward", 2): {"BM": 64, "BO": 64, "BI": 64, "threads": 256, "num_stages": 2, "maxnreg": 255},
    ("nall backward", 4): {"BM": 64, "BO": 32, "BI": 32, "threads": 256, "num_stages": 1, "maxnreg": 255},
    ("nsp narrow forward", 2): {"ROWS": 64, "BD": 64, "threads": 256, "num_stages": 2, "maxnreg": 255},
    ("nsp wide forward", 2): {"ROWS": 32, "BD": 64, "threads": 256, "num_stages": 3, "maxnreg": 255},
    ("nsp wide forward", 4): {"ROWS": 32, "BD": 32, "threads": 256, "num_stages": 1, "maxnreg": 255},
    ("nsp backward", 2): {"ROWS": 32, "BD": 64, **_PARAMETERS[2], "threads": 256, "num_stages": 2, "maxnreg": 255},
    ("nsp backward", 4): {"ROWS": 32, "BD": 32, **_PARAMETERS[4], "threads": 256, "num_stages": 1, "maxnreg": 255},
}
_CHANGES: tuple[Config, ...] = (
    {"threads": 128}, {"threads": 256}, {"num_stages": 1}, {"num_stages": 3},
    {"BM": 32}, {"BM": 128}, {"ROWS": 16}, {"ROWS": 32}, {"ROWS": 64}, {"BO": 32}, {"BO": 128}, {"BI": 32}, {"BI": 128},
)  # fmt: skip


def from_table(kernel: str, dtype: torch.dtype, M: int, I: int, O: int, rank: int) -> Config:
    """The entry of a kernel, its blocks (powers of two from 16 on, as tensor cores take them) no larger than needed."""
    config = _TABLE[kernel, dtype.itemsize] | {"R": _block(rank)}
    if dtype.itemsize == 4:  # registers hold the low-rank code of a tile of rows, and a chunk's factor, too
        config |= {
            name: max(16, config[name] * 32 // max(32, config["R"])) for name in ("BM", "ROWS") if name in config
        }
        config |= {"BD": 16} if config["R"] > 64 and "BD" in config else {}
    else:
        config |= {name: config[name] * 64 // max(64, config["R"]) for name in ("BM", "ROWS") if name in config}
        config |= {"threads": 256} if config["R"] > 16 else {}
        if I % 8 or O % 8:  # rows that do not begin at 16 bytes are read number by number, each with its address
            config |= {name: 32 for name in ("BO", "BI", "BD", "ROWS") if name in config}
    sizes = {"BM": M, "ROWS": M, "BO": O, "BI": I, "BD": I}
    return {name: min(value, _block(sizes[name])) if name in sizes else value for name, value in config.items()}


def is_narrow(direction: str, dtype: torch.dtype, D: int, rank: int) -> bool:
    """Do a stack's rows stay in registers? Two chunks of columns forward, one backward or of a high rank.

    More would spill, as does fp32.
    """
    chunk = 64 if D % 8 == 0 else 32
    return dtype.itemsize == 2 and (2 if direction == "forward" and rank <= 32 else 1) * chunk >= D


def _block(size: int) -> int:
    return max(16, triton.next_power_of_2(size))


def options(config: Config, gpu: Gpu) -> Config:
    """As a launch takes them: threads in warps of the device, ptxas's options where it is ptxas that compiles."""
    foreign = ("threads",) if gpu.backend == "cuda" else ("threads", "maxnreg")
    ours = {name: value for name, value in config.items() if name not in foreign}
    return ours | {"num_warps": config["threads"] // gpu.warp, "enable_fp_fusion": True}


def tuned(
    key: Hashable, M: int, x: Tensor, numerics: dict[str, object], default: Config, launch: Callable[[Config], object]
) -> Config:
    """The configuration for a call; ``launch`` runs it with one, and can repeat, as it only overwrites its outputs."""
    if os.environ.get("STLORA_TRITON_AUTOTUNE") != "1" or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return default
    key = (key, triton.next_power_of_2(M), x.device, x.dtype, numerics["PRECISION"], tuple(default.items()))
    if key not in _best:
        tried = [
            default,
            *(default | c for c in _CHANGES if c.items() - default.items() and c.keys() <= default.keys()),
        ]
        times = [_milliseconds(functools.partial(launch, config), x) for config in tried]
        _best[key] = tried[times.index(min(times))]
        log.debug("triton: tuned %s: %s, %.3f ms (the table's entry: %.3f ms)", key, _best[key], min(times), times[0])
    return _best[key]


_best: dict[Hashable, Config] = {}


def _milliseconds(call: Callable[[], object], x: Tensor) -> float:
    """Infinite for tiles that do not compile or do not fit; if none does, the call itself says why."""
    try:
        return triton.testing.do_bench(call, warmup=5, rep=20, return_mode="median") if x.is_cuda else 0.0
    except (triton.TritonError, RuntimeError) as error:
        log.debug("triton: passed over while tuning: %s", error)
        return float("inf")
