"""The backends: where each can run, and what its kernels cover."""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from stlora_kernels.errors import InputError
from stlora_kernels.ops import cuda_launch, native


def _nothing_more(operation: str, x: torch.Tensor, rank: int, *sizes: int) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """A way to compute every fused operation: in ``ops/<operation>/<module>.py``."""

    module: str
    why_unavailable: Callable[[str], str | None]  # on a kind of device; None if it can run there
    dtypes: tuple[torch.dtype, ...]
    highest_rank: int = sys.maxsize
    why_not: Callable[..., str | None] = _nothing_more  # cover an operation, its x, rank and sizes; None if it does


def _why_no_triton_here() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    for name in ("triton", "pytorch-triton", "pytorch-triton-rocm"):
        with suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
            if tuple(map(int, version.split(".")[:2])) < (3, 5):
                return f"triton is {version}, expected 3.5 or newer"
    return None


_NO_TRITON = _why_no_triton_here()  # asked once, and before torch.compile would trace it


def _why_no_triton(device_type: str) -> str | None:
    if _NO_TRITON:
        return _NO_TRITON
    # Its interpreter runs kernels on the CPU, slowly: for tests.
    interpreted = device_type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return None if device_type == "cuda" or interpreted else f"the tensors are on {device_type}"


_HALVES = (torch.bfloat16, torch.float16)

# Fastest first.
BACKENDS = {
    "cpu": Backend("cpu", native.why_unavailable, (torch.float32, torch.float64, *_HALVES)),
    "cuda": Backend("cuda", native.why_no_cuda, (torch.float32, *_HALVES), 128, cuda_launch.why_not),
    "triton": Backend("triton", _why_no_triton, (torch.float32, *_HALVES), 128),
    "reference": Backend("reference", lambda device_type: None, ()),
}


def known(name: str) -> str:
    """The name again, if there is a backend of that name; else InputError."""
    if name not in BACKENDS:
        raise InputError(f"backend: got {name!r}, expected one of {', '.join(BACKENDS)}")
    return name
