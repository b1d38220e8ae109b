"""The curriculum of training."""

import pytest

from stlora_kernels.errors import InputError
from stlora_kernels.training.curriculum import curriculum_steps


def published(batches, warm_steps, cl_steps, horizon):
    """As a counter that goes along with the batches."""
    steps, counter = [], 0
    for batch in range(batches):
        if batch < warm_steps:
            counter = horizon
        elif batch == warm_steps:
            counter = 1
        elif (batch - warm_steps) % cl_steps == 0:
            counter += 1
        steps.append(min(counter, horizon))
    return steps


@pytest.mark.parametrize(
    ("warm_steps", "cl_steps", "horizon"), [(0, 6, 12), (30, 3, 12), (5, 1, 3), (7, 4, 1)], ids=str
)
def test_equals_a_counter(warm_steps, cl_steps, horizon):
    steps = [curriculum_steps(step, warm_steps, cl_steps, horizon) for step in range(100)]
    assert steps == published(100, warm_steps, cl_steps, horizon)
    assert steps[:warm_steps] == [horizon] * warm_steps
    assert steps[warm_steps] == 1
    assert steps[-1] == horizon


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, 1, 12), r"step: got -1, expected an integer of at least 0"),
        ((0, -3, 1, 12), r"warm_steps: got -3, expected an integer of at least 0"),
        ((0, 0.5, 1, 12), r"warm_steps: got 0.5, expected"),
        ((0, 0, 0, 12), r"cl_steps: got 0, expected an integer of at least 1"),
        ((0, 0, 1, 0), r"horizon: got 0, expected"),
    ],
    ids=["step", "warm", "fraction", "cl", "horizon"],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        curriculum_steps(*arguments)
