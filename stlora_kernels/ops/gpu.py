"""What the hosts of all GPU kernels share: the device, the precision that torch allows, node indices."""

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from stlora_kernels.ops import inputs


def on(x: Tensor) -> Any:
    """Makes the tensor's device current: kernels are launched there, on its current stream."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def may_use_tf32(x: Tensor) -> bool:
    """What torch's own products may do; a process that has used the new way of saying so may not ask in the old."""
    if x.dtype != torch.float32:
        return False
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32


def has_seed(x: Tensor, seed: Tensor | None) -> bool:
    """Is the seed where the kernels can read it? So they must where a CUDA graph's replays are to differ."""
    return seed is not None and x.is_cuda and seed.device == x.device


_checked = WeakTensorKeyDictionary()  # node_index -> the state in which its range was looked at


def checked(node_index: Tensor | None, adapters: int) -> Tensor | None:
    """The node_index, contiguous. Looking at its range waits for the GPU, so it is done once, until it is written to.

    Raises:
        InputError: if it names an adapter that is not there, except while a CUDA graph is captured, which cannot wait.
    """
    if node_index is None:
        return None
    state = None if node_index.is_inference() else (node_index._version, adapters)
    capturing = node_index.is_cuda and torch.cuda.is_current_stream_capturing()
    if not capturing and (state is None or _checked.get(node_index) != state):
        inputs.check_range(node_index, adapters)
        _checked[node_index] = state
    return node_index.contiguous()


def by_adapter(node_index: Tensor | None, adapters: int) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The node_index, the node slots sorted by adapter, and where each adapter's begin, ``[P + 1]``."""
    if node_index is None:
        return None, None, None
    order = torch.argsort(node_index, stable=True)
    first_slot = torch.searchsorted(node_index[order], torch.arange(adapters + 1, device=node_index.device))
    return node_index.contiguous(), order, first_slot
