"""Forecasting models that ST-LoRA adapts, one file each, by name."""

from stlora_kernels.backbones.agcrn import AGCRN
from stlora_kernels.backbones.d2stgnn import D2STGNN
from stlora_kernels.backbones.gwnet import GraphWaveNet
from stlora_kernels.backbones.lstm import LSTM
from stlora_kernels.backbones.registry import backbone_names, build_backbone, register
from stlora_kernels.backbones.staeformer import STAEformer
from stlora_kernels.backbones.stgcn import STGCN

__all__ = [
    "AGCRN",
    "D2STGNN",
    "LSTM",
    "STGCN",
    "GraphWaveNet",
    "STAEformer",
    "backbone_names",
    "build_backbone",
    "register",
]
