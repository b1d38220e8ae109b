"""Builds ``stlora_kernels._C`` with CMake and ninja; everything else stands in pyproject.toml.

Without a C++ compiler, or on another system than Linux, the package installs as pure Python and runs on its
reference backend. Environment: ``CXX`` and ``CMAKE_ARGS`` as usual; ``STLORA_CUDA`` = ``auto``, ``on`` or ``off``:
whether to build CUDA kernels (this version has none yet, so ``on`` fails).
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


def why_not_native() -> str | None:
    """Why the kernels cannot be built here, or None if they can."""
    if not sys.platform.startswith("linux"):
        return f"the kernels are built on Linux, and this is {sys.platform}"
    return None if has_compiler() else "no C++ compiler found"


def has_compiler() -> bool:
    """Is there a C++ compiler that CMake would find?"""
    if "CXX" in os.environ:
        return shutil.which(shlex.split(os.environ["CXX"])[0]) is not None
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def check_cuda() -> None:
    """Refuse a ``STLORA_CUDA`` that cannot be met."""
    choice = os.environ.get("STLORA_CUDA", "auto")
    if choice not in ("auto", "on", "off"):
        sys.exit(f"error: STLORA_CUDA: got {choice!r}, expected auto, on or off")
    if choice == "on" and shutil.which("nvcc") is None:
        sys.exit(
            "error: STLORA_CUDA=on, but there is no nvcc on the PATH: install the CUDA toolkit, or use auto or off"
        )
    if choice == "on":
        sys.exit("error: STLORA_CUDA=on, but this version has no CUDA kernels yet: use auto or off")


class CMakeBuild(build_ext):
    """Hands the one extension to CMake."""

    def run(self) -> None:
        check_cuda()
        reason = why_not_native()
        if reason is None:
            super().run()
        else:
            self.extensions = []
            self.warn(f"{reason}: installing stlora_kernels without its fast kernels")

    def build_extension(self, extension: Extension) -> None:
        target = Path(self.get_ext_fullpath(extension.name)).resolve()
        build = Path(self.build_temp).resolve() / "cmake"
        # A cache from an earlier build points into that build's environment, which is gone: start afresh.
        configure = ["cmake", "--fresh", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"]
        configure += [f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={build}"]
        subprocess.run(configure + shlex.split(os.environ.get("CMAKE_ARGS", "")), check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", "_C"], check=True)
        # Into the source folder too: Python started in a clone imports that, and not what pip installed.
        for folder in {target.parent, ROOT / "stlora_kernels"}:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(build / target.name, folder)


setup(ext_modules=[Extension("stlora_kernels._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
