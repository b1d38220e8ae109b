"""``python -m stlora_kernels.info``: what is installed, which backends can run here, and why others cannot."""

import argparse
import platform
import sys
from collections.abc import Sequence
from typing import Any

import numpy
import torch

import stlora_kernels as sk
from stlora_kernels.ops import backends, cuda_launch, dispatch, native
from stlora_kernels.training.cli import run


def lines() -> list[str]:
    """The report, a line each."""
    report = [
        f"stlora_kernels {sk.__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"torch {torch.__version__}, numpy {numpy.__version__}, {torch.get_num_threads()} threads",
    ]
    if asked_for := dispatch.preferred():
        report.append(f"backend asked for by STLORA_BACKEND: {asked_for}")
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    for device in devices:
        for name in backends.BACKENDS:
            reason = dispatch.why_unavailable(name, device)
            report.append(f"{device}: backend {name}: {'available' if reason is None else f'not available: {reason}'}")
    if native.why_unavailable("cpu") is None:
        extension = native.kernels()
        offered = [isa for isa in native.ISAS if extension.isa_supported(isa)]
        report.append(
            f"cpu kernels: {extension.selected_isa()} in use, {', '.join(offered)} usable here "
            f"(STLORA_CPU_ISA chooses), built by {extension.compiler}"
        )
    report += _cuda_lines()
    return report


def _cuda_lines() -> list[str]:
    """What the CUDA kernels were built for, and whether the GPUs here can run them."""
    extension: Any = native.kernels() if native.why_unavailable("cpu") is None else None
    if not hasattr(extension, "cuda_architectures"):
        return ["cuda kernels: not built (with nvcc on the PATH, `pip install .` builds them; see STLORA_CUDA)"]
    architectures = extension.cuda_architectures.split(",")
    report = [f"cuda kernels: built for {', '.join(architectures)} by {extension.cuda_compiler}"]
    for number in range(torch.cuda.device_count()):
        reason = native.why_no_cuda("cuda") or cuda_launch.why_no_code(
            torch.cuda.get_device_capability(number), architectures
        )
        report.append(f"cuda:{number}: {torch.cuda.get_device_name(number)}: {reason or 'they run here'}")
    return report


def main(argv: Sequence[str]) -> None:
    """Print the report."""
    argparse.ArgumentParser(prog="python -m stlora_kernels.info", description=__doc__).parse_args(argv)
    print(*lines(), sep="\n")


if __name__ == "__main__":
    sys.exit(run(main))
