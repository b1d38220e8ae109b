"""Fused node-adaptive low-rank layers (ST-LoRA, arXiv 2404.07919) for spatio-temporal forecasting."""

from stlora_kernels.nn.nall import NALL, FusedNALL, fuse
from stlora_kernels.ops.dispatch import available_backends, use_backend
from stlora_kernels.ops.nall import nall

__version__ = "0.1.0"

__all__ = ["NALL", "FusedNALL", "available_backends", "fuse", "nall", "use_backend"]
