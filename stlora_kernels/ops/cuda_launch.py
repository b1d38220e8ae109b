"""What the hosts of the CUDA kernels share: the device, the launch, and what the kernels cover there."""

import functools
import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from stlora_kernels.ops import gpu, native

OLDEST = (8, 0)  # compute capability: asynchronous copies

# Where tests put the emulator's kernels, for tensors on the CPU, and the GPU that it plays: multiprocessors, and bytes
# of shared memory a block may have.
emulator: ModuleType | None = None
EMULATED = (2, 227 << 10)


def kernels(x: Tensor) -> ModuleType:
    """The module whose functions launch where this tensor is."""
    if x.is_cuda:
        return native.kernels()
    assert emulator is not None
    return emulator


@functools.cache
def _device(device: torch.device) -> tuple[int, int]:
    return native.kernels().cuda_device(device.index) if device.type == "cuda" else EMULATED


def launch(x: Tensor, seed: Tensor | None) -> tuple[Any, ...]:
    """What every call of the kernels begins with."""
    stream = torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0
    return _device(x.device), stream, gpu.may_use_tf32(x), gpu.has_seed(x, seed)


def room(x: Tensor) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    """Makes what the kernels ask for: floats, and counters that are zero. Nothing is kept from call to call."""

    def make(floats: int, counters: int) -> tuple[Tensor, Tensor]:
        return (
            torch.empty(floats, dtype=torch.float32, device=x.device),
            torch.zeros(counters, dtype=torch.int32, device=x.device),
        )

    return make


def why_not(operation: str, x: Tensor, rank: int, *sizes: int) -> str | None:
    """Why the kernels do not cover an operation of these sizes on the tensor's device, or None if they do."""
    # index and not int, which torch.compile would leave a symbol where sizes are dynamic
    numbers = (operator.index(size) for size in (rank, *sizes))
    return _constant(operation, x.device, str(x.dtype).removeprefix("torch."), *numbers)


def _constant(*question: Any) -> str | None:
    return _why_not(*question)


# torch.compiler.assume_constant_result, short of importing torch's compiler: a graph is traced for one device and one
# set of sizes.
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _why_not(operation: str, device: torch.device, dtype: str, *sizes: int) -> str | None:
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if reason := why_no_code(capability, native.kernels().cuda_architectures.split(",")):
            return reason
        extension = native.kernels()
    else:
        assert emulator is not None
        extension = emulator
    query = extension.cuda_why_not_nall if operation == "nall" else extension.cuda_why_not_nsp
    return query(_device(device), dtype, *sizes)


def why_no_code(capability: tuple[int, int], architectures: list[str]) -> str | None:
    """Why a GPU cannot run code built for CMake's ``architectures`` ("90", "90-real", "90-virtual"), or None."""
    here = capability[0] * 10 + capability[1]
    if capability < OLDEST:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, expected 8.0 or newer"
    for name in architectures:
        number, _, kind = name.partition("-")
        if not number.isdigit():  # 90a runs on 9.0 only; of a word nothing is known
            if number.rstrip("af") == str(here) and kind != "virtual":
                return None
            continue
        as_machine_code = kind != "virtual" and int(number) // 10 == here // 10 and int(number) <= here
        as_ptx = kind != "real" and int(number) <= here
        if as_machine_code or as_ptx:
            return None
    return f"the GPU has compute capability {capability[0]}.{capability[1]}, and they were built for {architectures}"
