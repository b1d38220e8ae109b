"""Compiles the CUDA kernels for GPUs that are not here, and lists what a reader of the machine code would look for.

    python bench/cuda_static.py [--rank 16] [--sizes 64 307 144] [--devices 80 90] [--numbers bf16 fp32] > table.csv

The library is built as ``pip install .`` builds it; registers and counts of instructions come from its disassembly,
spills being instructions that touch local memory. Blocks, their shared memory and the bytes that they ask of L2 come
from the emulator, which runs the very launches on a graph that gives one multiprocessor as many nodes as the GPU's have
each. The least that memory can be asked for is every tensor once; the time that takes, or the products take at the
datasheet's peak if that is longer, is a prediction, not a measurement.
"""

import argparse
import csv
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from gpu_calls import OPERATIONS, Sizes, call, flop, least_bytes
from gpu_devices import DEVICES, Device
from sass import Code, functions

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
import emulator  # noqa: E402  the emulator is part of the tests
from tools import tool  # noqa: E402

NUMBERS = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32}
_MANGLED = {"bf16": "I13__nv_bfloat16", "fp16": "I6__half", "tf32": "INS0_4tf32E", "fp32": "If"}
COLUMNS = (
    "nvcc", "device", "operation", "numbers", "M", "N", "D", "rank", "launches", "registers", "spills", "shared bytes",
    "shared limit", "occupancy", "tensor-core instructions", "FFMA", "16-byte loads", "asked over least", "least MB",
    "predicted us",
)  # fmt: skip


def build(devices: Sequence[Device]) -> tuple[Path, str]:
    """The library of CUDA kernels for these devices, and the compiler."""
    folder = ROOT / "build" / "cuda"
    architectures = ";".join(f"{device.architecture}-real" for device in devices)
    configure = [
        tool("cmake"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-S", ROOT, "-B", folder,
        "-DSTLORA_CUDA=ON", "-DSTLORA_PYTHON=OFF", f"-DCMAKE_CUDA_ARCHITECTURES={architectures}",
    ]  # fmt: skip
    for command in (configure, [tool("cmake"), "--build", folder, "--target", "stlora_cuda"]):
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if run.returncode:
            sys.exit(run.stdout)
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return folder / "libstlora_cuda.a", version.rpartition("V")[2].split()[0]


def kernel_of(operation: str, numbers: str, codes: dict[str, Code]) -> Code:
    """The machine code that an operation on aligned rows runs."""
    name, way = operation.split()
    kernel = f"{'nall' if name == 'nall' else 'nsp'}_{way}_kernel{_MANGLED[numbers]}"
    found = [code for mangled, code in codes.items() if kernel in mangled and "Lb0E" not in mangled]
    assert len(found) == 1, kernel
    return found[0]


def emulated(operation: str, numbers: str, sizes: Sizes, device: Device) -> tuple[list[tuple], float]:
    """The launches of one call, and the bytes that they ask for over the least."""
    M, N, D, rank = sizes
    few = (M, math.ceil(N / device.multiprocessors), D, rank)
    emulator.emulate(multiprocessors=1, shared=device.shared)
    emulator.load().launches()
    torch.backends.cuda.matmul.allow_tf32 = numbers == "tf32"
    call(operation, "cuda", NUMBERS[numbers], few, 0.1, "cpu")
    launches = emulator.load().launches()
    asked = sum(read + written for *_, read, written in launches)
    return launches, asked / least_bytes(operation, few, NUMBERS[numbers].itemsize)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [name for name in DEVICES if name.isdigit()]
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs=3, default=(64, 307, 144), metavar=("M", "N", "D"))
    parser.add_argument("--devices", nargs="+", choices=known, default=known, help="architectures")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS)
    parser.add_argument("--numbers", nargs="+", choices=NUMBERS, default=list(NUMBERS))
    options = parser.parse_args()
    sizes = (*options.sizes, options.rank)
    devices = [DEVICES[name] for name in options.devices]
    library, nvcc = build(devices)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for device in devices:
        codes = functions(library, device.architecture)
        for operation in options.operations:
            for numbers in options.numbers:
                row = (nvcc, f"{device.name} ({device.architecture})", operation, numbers, *sizes)
                try:
                    launches, asked = emulated(operation, numbers, sizes, device)
                except RuntimeError as error:
                    if "do not fit" not in str(error):
                        raise
                    writer.writerow((*row, "refused: the tiles do not fit"))
                    continue
                code = kernel_of(operation, numbers, codes)
                _, threads, shared, _, _ = launches[-1]
                least = least_bytes(operation, sizes, NUMBERS[numbers].itemsize)
                peak = device.tflops.get(numbers, device.tflops["16"])
                seconds = max(least / device.bandwidth, flop(operation, sizes) / peak) / 1e12
                row += (len(launches), code.registers, code.spills, shared, device.shared)
                row += (f"{device.occupancy(code.registers, threads, shared):.2f}", code.tensor_core, code.ffma)
                row += (code.wide_loads, f"{asked:.1f}", f"{least / 1e6:.1f}", f"{seconds * 1e6:.1f}")
                writer.writerow(row)
                sys.stdout.flush()


if __name__ == "__main__":
    main()
