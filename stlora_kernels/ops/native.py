"""Loads the compiled extension ``_C`` and says what it offers.

``_C`` borrows torch's OpenMP runtime (the symbols are resolved in the process, where ``import torch`` has put
them), so that kernels share torch's threads instead of competing with them.

Environment: ``STLORA_CPU_ISA`` forces the instruction set: ``avx512``, ``avx2`` or ``portable``.
"""

import os
import warnings
from types import ModuleType

import torch  # noqa: F401  brings the OpenMP runtime that _C resolves its symbols from

extension: ModuleType | None = None
_reason: str | None = None

try:
    from stlora_kernels import _C as extension  # type: ignore[no-redef]
except ImportError as error:
    _reason = f"the compiled extension stlora_kernels._C cannot be loaded ({error})"
    warnings.warn(
        f"stlora_kernels runs on its slow reference backend: {_reason}; "
        "install a C++ compiler and run `pip install --force-reinstall --no-deps .` to build it",
        RuntimeWarning,
        stacklevel=2,
    )
else:
    if "STLORA_CPU_ISA" in os.environ:
        extension.select_isa(os.environ["STLORA_CPU_ISA"])


def why_unavailable(device_type: str) -> str | None:
    """Why the CPU kernels cannot run on a device of this kind, or None if they can."""
    if device_type != "cpu":
        return f"the tensors are on {device_type}"
    return _reason


def kernels() -> ModuleType:
    """The extension; call only where :func:`why_unavailable` gave no reason."""
    assert extension is not None
    return extension
