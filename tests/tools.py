"""Finds the tools that the ``dev`` extra brings."""

import shutil
import sys
from pathlib import Path


def tool(name: str) -> str:
    """The tool beside this Python, which need not be on the PATH."""
    path = Path(sys.executable).parent / name
    found = str(path) if path.exists() else shutil.which(name)
    assert found, f"{name} is not installed; it comes with: pip install 'stlora_kernels[dev]'"
    return found
