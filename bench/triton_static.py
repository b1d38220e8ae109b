"""Compiles the Triton kernels for GPUs that are not here, and lists what a reader of the machine code would look for.

    python bench/triton_static.py [--rank 16] [--sizes 64 307 144] [--devices 80 90 gfx942] > table.csv

The host code runs as it would with such a GPU, on tensors without data; where it launches a kernel, the kernel is
compiled for exactly that launch. Counts come from the disassembly: spills are instructions that touch local memory.
Bytes are what programs ask of the L2 cache (``triton_traffic.py``) and, the least that memory can be asked for, every
tensor once. The time that the least takes at the device's datasheet bandwidth is a prediction, not a measurement.
"""

import argparse
import csv
import itertools
import json
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
import triton
from gpu_calls import OPERATIONS, Sizes, call, least_bytes
from gpu_devices import DEVICES, Device
from sass import functions
from triton.backends.compiler import GPUTarget

from stlora_kernels.ops import triton_launch
from stlora_kernels.ops.nall import triton_kernels as nall_kernels
from stlora_kernels.ops.nsp import triton_gradients as nsp_gradients
from stlora_kernels.ops.nsp import triton_kernels as nsp_kernels

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
COLUMNS = (
    "triton", "device", "operation", "dtype", "dropout", "M", "N", "D", "rank", "launches", "kernel", "registers",
    "spills", "shared bytes", "shared limit", "occupancy", "tensor-core instructions", "16-byte loads", "asked MB",
    "least MB", "predicted us",
)  # fmt: skip
KERNELS = (
    (nall_kernels, "forward"), (nall_kernels, "backward"),
    (nsp_kernels, "narrow"), (nsp_kernels, "wide"), (nsp_gradients, "backward"),
)  # fmt: skip


def target_of(device: Device) -> GPUTarget:
    if device.architecture.isdigit():
        return GPUTarget("cuda", int(device.architecture), 32)
    return GPUTarget("hip", device.architecture, 64)


@dataclass(frozen=True)
class Report:
    kernel: str
    registers: int
    spills: int  # instructions that read or write local memory
    shared: int
    occupancy: float  # of the threads a multiprocessor holds
    tensor_core: int  # instructions
    wide_loads: int  # of 16 bytes


class _AbsentGpu:
    """Triton's driver of a GPU that is not here: good for compiling, not for launching."""

    def __init__(self, device: Device):
        self.device = device

    def get_current_target(self) -> GPUTarget:
        return target_of(self.device)

    def get_current_device(self) -> str:
        return self.device.name

    def get_current_stream(self, device: str) -> int:
        return 0


class _Compiling:
    """Stands for a kernel: where the host launches it, it is compiled with the very arguments of the launch."""

    def __init__(self, kernel: triton.JITFunction, compiled: list):
        self.kernel, self.compiled = kernel, compiled

    def __getitem__(self, grid):
        return lambda *args, **kwargs: self.compiled.append(self.kernel.warmup(*args, grid=grid, **kwargs))


def launches_of(operation: str, device: Device, dtype: torch.dtype, sizes: Sizes, p: float) -> list[Report]:
    """What one call of an operation launches, compiled for a device; the tensors have shapes only."""
    compiled: list = []
    triton.runtime.driver.set_active(_AbsentGpu(device))
    with ExitStack() as patches:
        for module, kernel in KERNELS:
            patches.enter_context(patch.object(module, kernel, _Compiling(getattr(module, kernel), compiled)))
        target = target_of(device)
        gpu = triton_launch.Gpu(device.multiprocessors, target.backend, target.warp_size, True)
        patches.enter_context(patch.object(triton_launch, "gpu", lambda _: gpu))
        call(operation, "triton", dtype, sizes, p, "meta")
    return [report(kernel, device) for kernel in compiled]


def asked_bytes(sizes: Sizes, operations: list[str]) -> dict[str, float]:
    """What programs ask of L2, by operation and type: from the interpreter, which needs a process of its own."""
    *shape, rank = map(str, sizes)
    script = Path(__file__).with_name("triton_traffic.py")
    command = [sys.executable, str(script), "--sizes", *shape, "--rank", rank, "--operations", *operations]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def report(compiled: triton.compiler.CompiledKernel, device: Device) -> Report:
    """What the machine code says."""
    if device.architecture.isdigit():
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            (code,) = functions(file.name, device.architecture).values()
        registers, spills, tensor_core, wide = code.registers, code.spills, code.tensor_core, code.wide_loads
    else:
        text = compiled.asm["amdgcn"]
        registers = int(re.search(r"\.vgpr_count:\s+(\d+)", text)[1])
        spills = len(re.findall(r"\bscratch_(?:load|store)", text))
        tensor_core, wide = text.count("v_mfma"), len(re.findall(r"(?:global|buffer)_load_dwordx4", text))
    threads = compiled.metadata.num_warps * target_of(device).warp_size
    occupancy = device.occupancy(registers, threads, compiled.metadata.shared)
    name = compiled.metadata.name
    return Report(name, registers, spills, compiled.metadata.shared, occupancy, tensor_core, wide)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs=3, default=(64, 307, 144), metavar=("M", "N", "D"))
    parser.add_argument("--devices", nargs="+", choices=DEVICES, default=list(DEVICES), help="architectures")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1])
    options = parser.parse_args()
    sizes = (*options.sizes, options.rank)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    traffic = asked_bytes(sizes, options.operations)
    asked = ([DEVICES[name] for name in options.devices], options.operations, options.dtypes, options.dropout)
    for device, operation, name, p in itertools.product(*asked):
        dtype, counted_as = DTYPES[name], "fp32" if name == "fp32" else "fp16"
        launches = launches_of(operation, device, dtype, sizes, p)
        least = least_bytes(operation, sizes, dtype.itemsize)
        for r in launches:
            code = (r.kernel, r.registers, r.spills, r.shared, device.shared, f"{r.occupancy:.2f}")
            code += (r.tensor_core, r.wide_loads, f"{traffic[f'{operation} {counted_as}'] / 1e6:.1f}")
            code += (f"{least / 1e6:.1f}", f"{least / device.bandwidth / 1e6:.1f}")
            writer.writerow(
                (
                    triton.__version__,
                    f"{device.name} ({device.architecture})",
                    operation,
                    name,
                    p,
                    *sizes,
                    len(launches),
                    *code,
                )
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
