"""Compiles the Triton kernels for GPUs that are not here, and prints what a reader of the machine code would look for.

    python bench/triton_static.py [--rank 16] [--sizes 64 307 144] [--devices 80 90 gfx942]

Registers and spills come from the compilers' own reports, instructions from the assembly. Bytes count each tensor
once; the time they take at the device's datasheet bandwidth is a prediction, a bound from below, not a measurement.
"""

import argparse
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stlora_kernels.ops.nall import triton as host
from stlora_kernels.ops.nall import triton_kernels

DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@dataclass(frozen=True)
class Device:
    """Facts of the vendors' datasheets and programming guides."""

    name: str
    target: GPUTarget
    shared: int  # bytes a program may have
    shared_all: int  # bytes a multiprocessor has
    registers: int  # 32-bit ones a multiprocessor has
    threads: int  # a multiprocessor holds
    bandwidth: float  # TB/s


DEVICES = [
    Device("A100 (80)", GPUTarget("cuda", 80, 32), 163 << 10, 164 << 10, 1 << 16, 2048, 2.04),
    Device("RTX 3090 (86)", GPUTarget("cuda", 86, 32), 99 << 10, 100 << 10, 1 << 16, 1536, 0.94),
    Device("RTX 4090 (89)", GPUTarget("cuda", 89, 32), 99 << 10, 100 << 10, 1 << 16, 1536, 1.01),
    Device("H100 (90)", GPUTarget("cuda", 90, 32), 227 << 10, 228 << 10, 1 << 16, 2048, 3.35),
    Device("B200 (100)", GPUTarget("cuda", 100, 32), 227 << 10, 228 << 10, 1 << 16, 2048, 8.0),
    Device("RTX 5090 (120)", GPUTarget("cuda", 120, 32), 99 << 10, 100 << 10, 1 << 16, 1536, 1.79),
    Device("MI300X (gfx942)", GPUTarget("hip", "gfx942", 64), 64 << 10, 64 << 10, 1 << 17, 2048, 5.3),
]
POINTERS = {"seed": "i64", "threshold": "i64", "workspace": "*fp32", "counters": "*i32"}
POINTERS |= dict.fromkeys(("node_index", "order", "first_slot"), "*i64")
FLOATS = ("alpha", "scale", "slope")
TENSORS = ("x", "weight", "bias", "A", "B", "y", "grad", "dx", "dweight", "dbias", "dA", "dB")
ALIGNED = ("I", "O", "x_m", "x_n", "g_m", "g_n")  # sizes of whole 16-byte lines


@dataclass(frozen=True)
class Report:
    registers: int
    spills: int
    shared: int
    occupancy: float  # of the threads a multiprocessor holds
    tensor_core: int  # instructions
    wide_loads: int  # of 16 bytes


def compile_for(device: Device, backward: bool, dtype: torch.dtype, rank: int, dropout: bool) -> Report:
    """One kernel for one device, with every gradient wanted and sums shared by several programs."""
    kernel = triton_kernels.backward if backward else triton_kernels.forward
    tile = host.blocks(dtype, rank, backward)
    options = {name: tile.pop(name) for name in ("num_warps", "num_stages")}
    flags = {name: True for name in ("HAS_BIAS", "ALIGNED", *(f"NEEDS_{n}" for n in ("X", "WEIGHT", "BIAS", "A", "B")))}
    flags |= {"HAS_INDEX": False, "SEED_AT": False, "DROPOUT": dropout, "ACTIVATION": "none", "PRECISION": "ieee"}
    flags |= {"WEIGHT_SPLITS": 16, "FACTOR_SPLITS": 2, "x_i": 1, "g_o": 1, **tile}
    signature, constants, attributes = {}, {}, {}
    for position, parameter in enumerate(kernel.params):
        name = parameter.name
        if name in flags:
            signature[name], constants[name] = "constexpr", flags[name]
        elif name in TENSORS:
            signature[name] = f"*{DTYPES[dtype]}"
        else:
            signature[name] = "fp32" if name in FLOATS else POINTERS.get(name, "i32")
        if signature[name].startswith("*") or name in ALIGNED:
            attributes[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=device.target, options=options)
    warp = device.target.warp_size
    if device.target.backend == "cuda":
        registers, spills = _cuda_registers(compiled.asm["cubin"])
        code = compiled.asm["ptx"]
        tensor_core = len(re.findall(r"mma\.sync|wgmma\.mma|tcgen05\.mma", code))
        wide = len(re.findall(r"ld\.global[^;]*\.v4\.b32|ld\.global[^;]*\.v2\.b64|cp\.async[^;]*0x10", code))
    else:
        code = compiled.asm["amdgcn"]
        registers = int(re.search(r"\.vgpr_count:\s+(\d+)", code)[1])
        spills = 4 * int(re.search(r"\.vgpr_spill_count:\s+(\d+)", code)[1])
        tensor_core, wide = code.count("v_mfma"), len(re.findall(r"(?:global|buffer)_load_dwordx4", code))
    threads = options["num_warps"] * warp
    programs = min(
        device.registers // (max(registers, 16) * threads),
        device.shared_all // max(compiled.metadata.shared + 1024, 1),
        device.threads // threads,
    )
    occupancy = programs * threads / device.threads
    return Report(registers, spills, compiled.metadata.shared, occupancy, tensor_core, wide)


def _cuda_registers(cubin: bytes) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"REG:(\d+)", said)[1]), int(re.search(r"STACK:(\d+)", said)[1])


def least_bytes(M: int, N: int, D: int, r: int, size: int, backward: bool) -> int:
    """Every tensor moved once: x, W, b, A, B, y; backward: G, x, the parameters, and all gradients."""
    rows, parameters = M * N * D, D * D + D + 2 * N * D * r
    return size * (3 * rows + 2 * parameters if backward else 2 * rows + parameters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs=3, default=(64, 307, 144), metavar=("M", "N", "D"))
    known = [str(device.target.arch) for device in DEVICES]
    parser.add_argument("--devices", nargs="+", choices=known, default=known, help="architectures")
    options = parser.parse_args()
    M, N, D = options.sizes
    print(
        "device           kernel    type  dropout  registers  spills  shared  limit   occupancy  tensor-core  ", end=""
    )
    print("16-byte loads  least MB  predicted us")
    for device in DEVICES:
        if str(device.target.arch) not in options.devices:
            continue
        for backward in (False, True):
            for dtype, name in DTYPES.items():
                for dropout in (False, True):
                    r = compile_for(device, backward, dtype, options.rank, dropout)
                    least = least_bytes(M, N, D, options.rank, dtype.itemsize, backward)
                    kernel = "backward" if backward else "forward"
                    print(
                        f"{device.name:16} {kernel:9} {name}  {dropout!s:7}  {r.registers:9}  {r.spills:6}  "
                        f"{r.shared:6}  {device.shared:6}  {r.occupancy:9.2f}  {r.tensor_core:11}  {r.wide_loads:13}  "
                        f"{least / 1e6:8.1f}  {least / device.bandwidth / 1e6:12.1f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
