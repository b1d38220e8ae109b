"""Curriculum: train on the first steps of the horizon before all of it."""

from numbers import Integral

from stlora_kernels.errors import InputError
from stlora_kernels.nn.checks import check_sizes


def curriculum_steps(step: int, warm_steps: int, cl_steps: int, horizon: int) -> int:
    r"""How many steps of the horizon, from the first, the loss of this training step counts.

    .. math:: \mathrm{steps}(s) = H \; (s < s_{warm}), \quad \min(H, 1 + \lfloor (s - s_{warm}) / s_{cl} \rfloor)

    First all of them, to warm up; then one, and one more every ``cl_steps``. The model still forecasts the whole
    horizon: ``loss(y[:, :steps], target[:, :steps])``. At ``step == warm_steps`` D2STGNN's training also sets the
    learning rate back to its first value, whatever the schedule had made of it.

    Args:
        step: training steps (batches) done before this one, over all epochs.
        warm_steps: at the start with the whole horizon, at least 0.
        cl_steps: between two extensions. horizon: H.

    Returns:
        1 .. ``horizon``.

    Raises:
        InputError: for negative or non-integer arguments.

    Source: the training of D2STGNN (GestaltCogTeam/D2STGNN), which gives both in epochs times batches per epoch:
    METR-LA 0 and 6 epochs; PEMS-BAY, PEMS04 and PEMS08, and in BasicTS also PEMS03 and PEMS07, 30 and 3.
    """
    check_sizes(cl_steps=cl_steps, horizon=horizon)
    for name, count in (("step", step), ("warm_steps", warm_steps)):
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 0:
            raise InputError(f"{name}: got {count!r}, expected an integer of at least 0")
    if step < warm_steps:
        return horizon
    return min(horizon, 1 + (step - warm_steps) // cl_steps)
