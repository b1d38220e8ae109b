"""Picks the backend of a fused operation: what the caller asked for, else the fastest that covers the call.

Environment: ``STLORA_BACKEND`` names the backend to use everywhere, as :func:`use_backend` does in a block.
A backend that was asked for by name is used or refused with the reason, never replaced. Left to itself, the
choice falls to the next backend where a faster one does not cover the call, and a debug log says so.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from stlora_kernels.errors import InputError
from stlora_kernels.ops import native

log = logging.getLogger("stlora_kernels")


def _why_no_triton_here() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    for name in ("triton", "pytorch-triton", "pytorch-triton-rocm"):
        with suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
            if tuple(map(int, version.split(".")[:2])) < (3, 5):
                return f"triton is {version}, expected 3.5 or newer"
    return None


_NO_TRITON = _why_no_triton_here()  # asked once, and before torch.compile would trace it


def _why_no_triton(device_type: str) -> str | None:
    if _NO_TRITON:
        return _NO_TRITON
    # Its interpreter runs kernels on the CPU, slowly: for tests.
    interpreted = device_type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return None if device_type == "cuda" or interpreted else f"the tensors are on {device_type}"


# Fastest first. Each is told the kind of device and answers why it cannot run there, or None if it can.
BACKENDS: dict[str, Callable[[str], str | None]] = {
    "cpu": native.why_unavailable,
    "triton": _why_no_triton,
    "reference": lambda device_type: None,
}
# What their kernels cover: the dtypes, and the highest rank.
_HALVES = (torch.bfloat16, torch.float16)
COVERED = {"cpu": ((torch.float32, torch.float64, *_HALVES), sys.maxsize), "triton": ((torch.float32, *_HALVES), 128)}


def known(name: str) -> str:
    """The name again, if there is a backend of that name; else InputError."""
    if name not in BACKENDS:
        raise InputError(f"backend: got {name!r}, expected one of {', '.join(BACKENDS)}")
    return name


# Judged where it is used, not here: an import that fails would be a traceback in every command.
_preferred: str | None = os.environ.get("STLORA_BACKEND") or None


def preferred() -> str | None:
    """The backend that :func:`use_backend` or the environment asks for, if any.

    Raises:
        InputError: if there is no backend of this name.
    """
    return None if _preferred is None else known(_preferred)


def why_unavailable(name: str, device: torch.device | str = "cpu") -> str | None:
    """Why a backend cannot run on a device of this kind on this machine, or None if it can."""
    return BACKENDS[known(name)](torch.device(device).type)


def available_backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """The backends that can run on ``device``, fastest first."""
    return tuple(name for name in BACKENDS if why_unavailable(name, device) is None)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block every fused operation uses this backend (process-wide, like torch's own backend flags).

    Raises:
        InputError: if there is no backend of this name.
    """
    global _preferred
    before, _preferred = _preferred, known(name)
    try:
        yield
    finally:
        _preferred = before


def plain(*tensors: Tensor | None) -> bool:
    """May a call on these go around torch's dispatcher, which takes longer than a small layer?

    Only if the dispatcher would do nothing but call the kernel: the tensors are nothing more than their memory (no
    subclass, negative view, wrapper of vmap, functionalization or another transform), and nobody listens.
    """
    return nobody_listens() and native.all_plain(tensors)


def nobody_listens() -> bool:
    """No compile, export, trace, mode, transform or profiler (an ExecutionTraceObserver is not seen from here)."""
    return not (
        torch.compiler.is_compiling()
        or _modes() > 0
        or _modes_before_dispatch() > 0
        or _transform() is not None
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._get_tracing_state()
        or torch.autograd._profiler_enabled()
    )


_modes = torch._C._len_torch_dispatch_stack
_modes_before_dispatch = torch._ops._len_torch_dispatch_stack_pre_dispatch
_transform = torch._C._functorch.peek_interpreter_stack  # the innermost vmap, grad, functionalize...


def apply(function: type[torch.autograd.Function], direct: bool, *arguments: Any) -> Any:
    """``function.apply``, short of the argument binding that it repeats at every call, where the call is plain."""
    if direct:
        return super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]
    return function.apply(*arguments)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """torch's, short of the context it enters where nobody will ask for a second derivative."""
    checked = torch.autograd.function.once_differentiable(backward)

    @functools.wraps(backward)
    def wrapper(ctx: Any, *grads: Tensor | None) -> Any:
        return (checked if torch.is_grad_enabled() else backward)(ctx, *grads)

    return wrapper


def needed(gradients: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    """What an operator returns, which can return tensors only, without those that only fill a place."""
    return [g if n else None for g, n in zip(gradients, needs, strict=True)]


@functools.cache
def kernels(operation: str, backend: str) -> ModuleType:
    """Where a backend computes an operation. Imported when first used: triton takes longer than the whole package."""
    return importlib.import_module(f"stlora_kernels.ops.{operation}.{backend}")


def choose(
    operation: str, requested: str | None, device_type: str, why_not: Callable[..., str | None], *arguments: Any
) -> str:
    """The backend for one call.

    Args:
        operation: its name, for messages.
        requested: the backend the caller named, if any; :func:`use_backend` and the environment come next.
        device_type: where the tensors are.
        why_not: asked of a backend that is available, with these arguments: why it does not cover them, or None.

    Raises:
        InputError: if a backend was asked for by name and cannot run this call.
    """
    if requested is None and _preferred is not None:
        requested = preferred()
    candidates = BACKENDS if requested is None else (known(requested),)
    reason: str | None = None
    for name in candidates:
        reason = BACKENDS[name](device_type) or why_not(name, *arguments)
        if reason is None:
            return name
        if requested is None and not torch.compiler.is_compiling():
            log.debug("%s: backend %s passed over: %s", operation, name, reason)
    raise InputError(f"backend: {requested!r} cannot run this {operation}: {reason}")
