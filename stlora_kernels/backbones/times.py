"""Time as the backbones embed it: the fractions of a batch turned back into the indices that they were made from."""

import torch
from torch import Tensor

from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_sizes

DAYS_PER_WEEK = 7


def required_steps_per_day(model: str, steps_per_day: int | None) -> int:
    """``steps_per_day``, each of which ``model`` embeds.

    Raises:
        InputError: if it is not given, or no positive integer.
    """
    if steps_per_day is None:
        raise InputError(f"steps_per_day: got None, expected how many steps of a day {model} is to embed")
    check_sizes(steps_per_day=steps_per_day)
    return steps_per_day


def step_index(fraction: Tensor, steps: int, name: str) -> Tensor:
    r"""The step that a fraction of a period was made from: ``round(fraction * steps)``, int64.

    ``i / steps`` rounded to a dtype with ``eps`` is off by at most ``eps / 4``, so that ``i`` comes back as long as
    this is less than half a step: ``steps < 2 / eps``. bfloat16 can tell 96 steps of a day apart but not 288.

    Args:
        fraction: in [0, 1), any shape and floating dtype.
        name: what the message calls ``fraction``.

    Raises:
        InputError: for a dtype too coarse for ``steps``; for fractions outside [0, 1), where looking costs nothing
            (on the CPU, not compiled).
    """
    if steps * torch.finfo(fraction.dtype).eps >= 2:
        raise InputError(
            f"x: got its {name} in {fraction.dtype}, which cannot tell {steps} steps apart; "
            "keep x in float32 (torch.autocast computes in bfloat16 all the same)"
        )
    # In float32, because the product may need more digits than the fraction has.
    step = (fraction.float() * steps).round()
    # A GPU would have to be waited for, and a compiled graph cannot branch on values: there nn.Embedding checks.
    if step.device.type == "cpu" and not torch.compiler.is_compiling() and not ((step >= 0) & (step < steps)).all():
        raise InputError(f"x: got a {name} outside [0, 1), expected step / {steps} for the steps 0 .. {steps - 1}")
    return step.long()


def calendar_indices(x: Tensor, steps_per_day: int) -> tuple[Tensor, Tensor]:
    """Step of the day and day of the week, int64 ``[B, T, N]`` each, from the second and third feature of x.

    These are the fractions of :class:`~stlora_kernels.data.windows.Batch`; x is ``[B, T, N, F]``.

    Raises:
        InputError: see :func:`step_index`.
    """
    step = step_index(x[..., 1], steps_per_day, "time of day")  # [B, T, N]
    return step, step_index(x[..., 2], DAYS_PER_WEEK, "day of the week")
