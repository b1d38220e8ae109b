"""Builds ``stlora_kernels._C`` with CMake and ninja; everything else stands in pyproject.toml.

Without a C++ compiler the package installs as pure Python and runs on its reference backend.
Environment: ``STLORA_CUDA`` = ``auto`` (default), ``on`` or ``off``; ``CXX``, ``CMAKE_ARGS`` as usual.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def compiler() -> str | None:
    """The C++ compiler CMake would find, if there is one."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(shlex.split(name)[0]):
            return name
    return None


def cuda_wanted() -> bool:
    choice = os.environ.get("STLORA_CUDA", "auto")
    if choice not in ("auto", "on", "off"):
        sys.exit(f"error: STLORA_CUDA: got {choice!r}, expected auto, on or off")
    found = shutil.which("nvcc") is not None
    if choice == "on" and not found:
        sys.exit(
            "error: STLORA_CUDA=on, but no nvcc on the PATH; install the CUDA toolkit or set STLORA_CUDA=auto"
        )
    return choice != "off" and found and (ROOT / "csrc" / "cuda").is_dir()


class CMakeBuild(build_ext):
    """Hands the one extension to CMake."""

    def run(self) -> None:
        cuda = cuda_wanted()
        if compiler() is None:
            self.announce("stlora_kernels: no C++ compiler found, installing without native kernels", level=4)
            self.extensions = []
            return
        self.cuda = cuda
        super().run()

    def build_extension(self, extension: Extension) -> None:
        target = Path(self.get_ext_fullpath(extension.name)).resolve()
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={build}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", "_C"], check=True)
        built = build / target.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(built, target)


setup(ext_modules=[Extension("stlora_kernels._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
