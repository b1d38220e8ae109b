"""Picks the backend of a fused operation: what the caller asked for, else the fastest that covers the call.

Environment: ``STLORA_BACKEND`` names the backend to use everywhere, as :func:`use_backend` does in a block.
A backend that was asked for by name is used or refused with the reason, never replaced. Left to itself, the
choice falls to the next backend where a faster one does not cover the call, and a debug log says so.
"""

import functools
import importlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from stlora_kernels.errors import InputError
from stlora_kernels.ops import native
from stlora_kernels.ops.backends import BACKENDS, known

log = logging.getLogger("stlora_kernels")


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
    return BACKENDS[known(name)].why_unavailable(torch.device(device).type)


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
    return importlib.import_module(f"stlora_kernels.ops.{operation}.{BACKENDS[backend].module}")


def choose(
    operation: str, requested: str | None, device_type: str, why_not: Callable[..., str | None], *arguments: Any
) -> str:
    """The backend for one call.

    Args:
        operation: its name, for messages.
        requested: the backend the caller named, if any; :func:`use_backend` and the environment come next.
        device_type: where the tensors are.
        why_not: asked of a backend that is available, of the operation and these arguments: why it does not cover them,
            or None.

    Raises:
        InputError: if a backend was asked for by name and cannot run this call.
    """
    if requested is None and _preferred is not None:
        requested = preferred()
    candidates = BACKENDS if requested is None else (known(requested),)
    reason: str | None = None
    for name in candidates:
        reason = BACKENDS[name].why_unavailable(device_type) or why_not(BACKENDS[name], operation, *arguments)
        if reason is None:
            return name
        if requested is None and not torch.compiler.is_compiling():
            log.debug("%s: backend %s passed over: %s", operation, name, reason)
    raise InputError(f"backend: {requested!r} cannot run this {operation}: {reason}")
