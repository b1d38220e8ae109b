"""Reads the machine code of NVIDIA's GPUs with NVIDIA's own tools, which are packages of PyPI."""

import importlib.metadata
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Code:
    """What one function uses."""

    registers: int
    spills: int  # instructions that read or write local memory
    tensor_core: int  # instructions
    ffma: int
    wide_loads: int  # of 16 bytes from global memory


def functions(file: Path | str, architecture: str) -> dict[str, Code]:
    """The functions in an object, library or cubin that are compiled for an architecture, by their mangled names."""
    registers = dict(
        re.findall(r"Function (\w+):\s+REG:(\d+)", _cuobjdump(file, f"sm_{architecture}", "--dump-resource-usage"))
    )
    _, *dumps = re.split(r"Function : ", _cuobjdump(file, f"sm_{architecture}", "--dump-sass"))
    found = {}
    for dump in dumps:
        name, _, code = dump.partition("\n")
        found[name.strip()] = Code(
            int(registers[name.strip()]),
            len(re.findall(r"\b(?:STL|LDL)\b", code)),
            len(re.findall(r"\b(?:HMMA|HGMMA|UTCHMMA)\b", code)),
            len(re.findall(r"\bFFMA2?\b", code)),
            len(re.findall(r"\b(?:LDG\.E\S*\.128|LDGSTS\S*\.128)\b", code)),
        )
    return found


def _tool(name: str) -> Path:
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(f"nvidia-cuda-{name}") or []:
            if file.name == name:
                return Path(file.locate())
    sys.exit(f"{name} is not installed; it comes with: pip install nvidia-cuda-{name}")


def _cuobjdump(file: Path | str, architecture: str, what: str) -> str:
    env = os.environ | {"PATH": f"{_tool('nvdisasm').parent}:{os.environ['PATH']}"}  # which it calls
    command = [_tool("cuobjdump"), "--gpu-architecture", architecture, what, file]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
