"""What every model of this package asks of its arguments and inputs, each with a one-line error."""

import math
from collections.abc import Sequence
from numbers import Integral

from torch import Tensor

from stlora_kernels.errors import InputError
from stlora_kernels.ops.inputs import autocast_is_on


def check_sizes(**sizes: int) -> None:
    """Raise InputError unless every named size is a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
            raise InputError(f"{name}: got {size!r}, expected an integer of at least 1")


def check_widths(name: str, widths: Sequence[int], count: int) -> None:
    """Raise InputError unless ``widths`` are ``count`` positive integers."""
    if not isinstance(widths, Sequence) or len(widths) != count:
        raise InputError(f"{name}: got {widths!r}, expected {count} integers of at least 1")
    check_sizes(**{f"{name}[{i}]": width for i, width in enumerate(widths)})


def check_input_features(input_features: int, in_features: int) -> None:
    """Raise InputError unless a model can read the first ``input_features`` of ``in_features``."""
    check_sizes(input_features=input_features)
    if input_features > in_features:
        raise InputError(f"input_features: got {input_features}, expected at most in_features = {in_features}")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise InputError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise InputError(f"{name}: got {value!r}, expected {' or '.join(map(repr, choices))}")


def check_probability(name: str, value: float) -> None:
    """Raise InputError unless ``value`` is in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
        raise InputError(f"{name}: got {value!r}, expected a probability in [0, 1)")


def check_positive(name: str, value: float) -> None:
    """Raise InputError unless ``value`` is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
        raise InputError(f"{name}: got {value!r}, expected a number above 0")


def check_signal(name: str, x: Tensor, steps: int, num_nodes: int | None, features: int, like: Tensor) -> None:
    """Raise InputError unless ``x`` is ``[B, steps, num_nodes, features]`` in dtype and device of ``like``.

    Args:
        name: what the message calls ``x``.
        num_nodes: None where any number of nodes will do.
        like: a parameter of the model that reads ``x``; autocast makes its dtype irrelevant.
    """
    nodes_fit = x.dim() == 4 and (num_nodes is None or x.shape[2] == num_nodes)
    if not nodes_fit or x.shape[1] != steps or x.shape[3] != features:
        expected = f"[B, {steps}, {'N' if num_nodes is None else num_nodes}, {features}]"
        raise InputError(f"{name}: got shape {list(x.shape)}, expected {expected}")
    if x.device != like.device:
        raise InputError(f"{name}: got a tensor on {x.device}, expected {like.device} like the model")
    if x.dtype != like.dtype and not autocast_is_on(x):
        raise InputError(f"{name}: got dtype {x.dtype}, expected {like.dtype} like the model")


def check_forecast(y: object, expected: list[int]) -> None:
    """Raise InputError unless what a backbone returned is a tensor of this shape, ``[B, H, N, out]``."""
    if not isinstance(y, Tensor):
        raise InputError(f"backbone: its forecast is a {type(y).__name__}, expected a tensor {expected}")
    if list(y.shape) != expected:
        raise InputError(f"backbone: its forecast has shape {list(y.shape)}, expected {expected}")
