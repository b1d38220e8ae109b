"""Fused node-adaptive low-rank layers (ST-LoRA, arXiv 2404.07919) for spatio-temporal forecasting."""

from stlora_kernels.nn.nall import NALL, FusedNALL, fuse
from stlora_kernels.nn.nsp import NSP
from stlora_kernels.nn.stlora import STLoRA
from stlora_kernels.ops.dispatch import available_backends, use_backend
from stlora_kernels.ops.nall import nall
from stlora_kernels.ops.nsp import nsp_layer, nsp_stack

__version__ = "0.1.0"

__all__ = [
    "NALL",
    "NSP",
    "FusedNALL",
    "STLoRA",
    "available_backends",
    "fuse",
    "nall",
    "nsp_layer",
    "nsp_stack",
    "use_backend",
]
