"""Forecasting models that ST-LoRA adapts, one file each, by name."""

from stlora_kernels.backbones.lstm import LSTM
from stlora_kernels.backbones.registry import backbone_names, build_backbone, register
from stlora_kernels.backbones.stgcn import STGCN

__all__ = ["LSTM", "STGCN", "backbone_names", "build_backbone", "register"]
