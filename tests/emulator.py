"""The backend ``cuda-emulated``: the CUDA kernels of ``csrc/cuda`` on the CPU, by the emulator of ``tests/simt``."""

import dataclasses
import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from tools import tool

from stlora_kernels.ops import backends, cuda_launch

ROOT = Path(__file__).parents[1]
NAME = "cuda-emulated"


@functools.cache
def load() -> ModuleType:
    """Builds the module, where it is not built yet or no longer, and offers the backend from then on."""
    build = ROOT / "build" / "simt"
    configure = [
        tool("cmake"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-S", ROOT, "-B", build,
        "-DSTLORA_TESTS=ON", "-DSTLORA_WERROR=ON", f"-DPython_EXECUTABLE={sys.executable}",
    ]  # fmt: skip
    for command in (configure, [tool("cmake"), "--build", build, "--target", "_simt"]):
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    spec = importlib.util.spec_from_file_location("_simt", next(build.glob("_simt*.so")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cuda_launch.emulator = module
    module.emulate(0, *cuda_launch.EMULATED[1:], 2)
    backends.BACKENDS[NAME] = dataclasses.replace(
        backends.BACKENDS["cuda"], why_unavailable=lambda device: None if device == "cpu" else "it is emulated"
    )
    return module


def emulate(seed: int = 0, multiprocessors: int = 2, shared: int = 227 << 10, resident: int = 2) -> None:
    """From now on: this order of threads, this GPU, so many blocks side by side."""
    cuda_launch.EMULATED = (multiprocessors, shared)
    cuda_launch._device.cache_clear()
    cuda_launch._why_not.cache_clear()
    load().emulate(seed, shared, resident)
