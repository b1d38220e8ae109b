"""Backbones by name.

A backbone is an ``nn.Module`` built with ``(num_nodes, in_features, out_features, window, horizon, adjacency,
steps_per_day, **its own)``. It maps ``x [B, T, N, F]`` to ``[B, H, N, out]``, standardised on both sides.

Baselines that are fitted rather than trained are known and built in the same way, once ``stlora_kernels.baselines`` is
imported; what they map is another matter (:class:`stlora_kernels.baselines.Baseline`).
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from stlora_kernels.errors import InputError

_BACKBONES: dict[str, Callable[..., nn.Module]] = {}
Backbone = TypeVar("Backbone", bound=type[nn.Module])


def register(name: str) -> Callable[[Backbone], Backbone]:
    """Class decorator that makes a backbone known under ``name`` (lower case)."""

    def remember(backbone: Backbone) -> Backbone:
        if name in _BACKBONES:
            raise ValueError(f"backbone {name!r} is registered twice")
        _BACKBONES[name] = backbone
        return backbone

    return remember


def backbone_names() -> tuple[str, ...]:
    """The names of all registered backbones, sorted: what is trained, and can take the adapter. No baselines."""
    return tuple(sorted(name for name, kind in _BACKBONES.items() if not hasattr(kind, "is_fitted_at_once")))


def build_backbone(name: str, **arguments: Any) -> nn.Module:
    """Build a backbone.

    Args:
        name: a registered name in any case, or ``"package.module:Class"`` for a class of one's own.
        arguments: handed to its constructor: the shared arguments above and its own.

    Raises:
        InputError: if there is no such backbone (the message lists what there is), or it cannot be called with these
            arguments, or makes no module.
    """
    if ":" in name:
        backbone = _imported(name)
    elif name.lower() in _BACKBONES:
        backbone = _BACKBONES[name.lower()]
    else:
        known = ", ".join(sorted(_BACKBONES))
        raise InputError(f"backbone: got {name!r}, expected one of {known}, or 'package.module:Class' of your own")
    _check_call(backbone, name, arguments)
    model = backbone(**arguments)
    if not isinstance(model, nn.Module):
        raise InputError(f"backbone: {name!r} made a {type(model).__name__}, expected a torch.nn.Module")
    return model


def _check_call(backbone: Any, name: str, arguments: dict[str, Any]) -> None:
    """Refuse what cannot be called so, before the call: a TypeError from inside a backbone is a bug to be shown."""
    if not callable(backbone):
        raise InputError(f"backbone: {name!r} is a {type(backbone).__name__}, expected a class that makes a backbone")
    try:
        inspect.signature(backbone).bind(**arguments)
    except (TypeError, ValueError) as error:  # ValueError: it has no signature, as some built-in functions have none
        raise InputError(f"backbone: {name!r} cannot be called with {', '.join(arguments)}: {error}") from error


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # TypeError: of a relative name
        raise InputError(f"backbone: {name!r} cannot be imported: {error}") from error
