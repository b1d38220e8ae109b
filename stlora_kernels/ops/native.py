"""Loads the compiled extension ``_C`` and says what it offers.

``_C`` borrows torch's OpenMP runtime (the symbols are resolved in the process, where ``import torch`` has put
them), so that kernels share torch's threads instead of competing with them.

Environment: ``STLORA_CPU_ISA`` forces the instruction set: ``avx512_bf16``, ``avx512``, ``avx2`` or ``portable``.
"""

import importlib
import os
import warnings
from types import ModuleType

import torch  # brings the OpenMP runtime that _C resolves its symbols from

from stlora_kernels.errors import InputError

ISAS = ("avx512_bf16", "avx512", "avx2", "portable")  # best first

_extension: ModuleType | None = None
_reason: str | None = None
_refusal: str | None = None  # of STLORA_CPU_ISA; an import that fails would be a traceback in every command

try:
    _extension = importlib.import_module("stlora_kernels._C")
except ImportError as error:
    _reason = f"the compiled extension stlora_kernels._C is not there ({error})"
    warnings.warn(
        f"stlora_kernels runs on its slow reference backend: {_reason}; "
        "install a C++ compiler, then the package again, to have the fast kernels",
        RuntimeWarning,
        stacklevel=2,
    )
else:
    if "STLORA_CPU_ISA" in os.environ:
        try:
            _extension.select_isa(os.environ["STLORA_CPU_ISA"])
        except ValueError as error:
            _refusal = f"STLORA_CPU_ISA: {error}"


def why_unavailable(device_type: str) -> str | None:
    """Why the CPU kernels cannot run on a device of this kind, or None if they can.

    Raises:
        InputError: if ``STLORA_CPU_ISA`` asks for what this machine does not offer.
    """
    if _refusal is not None:
        raise InputError(_refusal)
    return _reason if device_type == "cpu" else f"the tensors are on {device_type}"


def why_no_cuda(device_type: str) -> str | None:
    """Why the CUDA kernels cannot run on a device of this kind, or None if they can."""
    if device_type != "cuda":
        return f"the tensors are on {device_type}"
    if torch.version.hip is not None:
        return "torch is built for AMD GPUs"
    return _reason or (None if hasattr(_extension, "cuda_architectures") else "the package was built without them")


def kernels() -> ModuleType:
    """The extension; call only where :func:`why_unavailable` gave no reason."""
    assert _extension is not None
    return _extension


def _no(*_: object) -> bool:
    return False


# Quick answers of the extension about the arguments of a call; a no means that Python has to look for itself.
all_plain = getattr(_extension, "all_plain", _no)
plain_nall = getattr(_extension, "plain_nall", _no)
