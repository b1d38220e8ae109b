"""Builds ``stlora_kernels._C`` with CMake and ninja; everything else stands in pyproject.toml.

Without a C++ compiler, or on another system than Linux, the package installs as pure Python and runs on its
reference backend. Environment: ``CXX``, ``CUDACXX`` and ``CMAKE_ARGS`` as usual; ``STLORA_CUDA`` = ``auto``, ``on`` or
``off``: whether to build the CUDA kernels (``auto``: where there is an nvcc that can; ``on``: or fail, saying why).
"""

import importlib.util
import os
import re
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
    if named := shlex.split(os.environ.get("CXX", "")):
        return shutil.which(named[0]) is not None
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def cuda_compiler() -> str | None:
    """The nvcc that ``CUDACXX`` names, or the one on the PATH, or in ``CUDA_HOME``; None if there is none."""
    if named := shlex.split(os.environ.get("CUDACXX", "")):
        return shutil.which(named[0])
    at_home = Path(os.environ.get("CUDA_HOME", "/nowhere")) / "bin"
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(at_home))


def why_not_cuda() -> str | None:
    """Why the CUDA kernels are not to be built, or None if they are; exits where ``STLORA_CUDA`` cannot be met."""
    choice = os.environ.get("STLORA_CUDA", "auto")
    if choice not in ("auto", "on", "off"):
        sys.exit(f"error: STLORA_CUDA: got {choice!r}, expected auto, on or off")
    if choice == "off":
        return "STLORA_CUDA=off"
    reason = why_not_native() or nvcc_refuses()
    if reason is not None and choice == "on":
        sys.exit(f"error: STLORA_CUDA=on, but {reason}: install what is missing, or use auto or off")
    return reason


def nvcc_refuses() -> str | None:
    """Why there is no nvcc that can build the kernels, or None if there is; older ones than 12.0 know no C++20."""
    nvcc = cuda_compiler()
    if nvcc is None and os.environ.get("CUDACXX"):
        return f"CUDACXX={os.environ['CUDACXX']} is no program"
    if nvcc is None:
        return "there is no nvcc on the PATH, nor in CUDA_HOME"
    try:
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    except OSError as error:
        return f"{nvcc} cannot be run: {error}"
    found = re.search(r"release (\d+)\.(\d+)", version)
    if found is None:
        return f"{nvcc} does not say its version"
    return None if int(found[1]) >= 12 else f"{nvcc} is {found[1]}.{found[2]}, expected 12.0 or newer"


def build_tool(name: str) -> str:
    """The cmake or ninja that pyproject.toml asks for: the PATH may name an older one, where pip does not isolate."""
    if importlib.util.find_spec(name) is None:
        return name
    module = importlib.import_module(name)
    return str(Path(module.CMAKE_BIN_DIR if name == "cmake" else module.BIN_DIR) / name)


class CMakeBuild(build_ext):
    """Hands the one extension to CMake."""

    no_cuda: str | None  # why the CUDA kernels are not built

    def run(self) -> None:
        self.no_cuda = why_not_cuda()
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
        configure = [build_tool("cmake"), "--fresh", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"]
        configure += [f"-DCMAKE_MAKE_PROGRAM={build_tool('ninja')}"]
        configure += [f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={build}"]
        with_cuda = ("-DSTLORA_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={cuda_compiler()}")
        if self.no_cuda is None and not self.built(configure, build, *with_cuda):
            self.no_cuda = f"{cuda_compiler()} cannot build them, see above"
            if os.environ.get("STLORA_CUDA") == "on":
                sys.exit(f"error: STLORA_CUDA=on, but {self.no_cuda}: mend that, or use auto or off")
        if self.no_cuda is not None:
            self.warn(f"building without CUDA kernels: {self.no_cuda}")
            if not self.built(configure, build):
                sys.exit("error: CMake cannot build the kernels, see above")
        # Into the source folder too: Python started in a clone imports that, and not what pip installed.
        for folder in {target.parent, ROOT / "stlora_kernels"}:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(build / target.name, folder)

    def built(self, configure: list[str], build: Path, *options: str) -> bool:
        """Configure and build; what the user asks of CMake has the last word."""
        configure = [*configure, *options, *shlex.split(os.environ.get("CMAKE_ARGS", ""))]
        commands = (configure, [build_tool("cmake"), "--build", str(build), "--target", "_C"])
        return all(subprocess.run(command).returncode == 0 for command in commands)


setup(ext_modules=[Extension("stlora_kernels._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
