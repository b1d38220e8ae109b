"""Small data sets made by hand."""

from collections.abc import Callable

import numpy as np
import pytest

from stlora_kernels.data import SensorData

MakeData = Callable[..., SensorData]


@pytest.fixture
def make_data() -> MakeData:
    """A SensorData of random flow that any field can be overridden in."""

    def make(steps: int = 60, nodes: int = 3, **changes) -> SensorData:
        rng = np.random.default_rng(0)
        fields = {
            "name": "small",
            "values": rng.uniform(0, 100, (steps, nodes, 1)).astype(np.float32),
            "times": np.datetime64("2024-01-01T00:00:00", "s") + np.arange(steps) * np.timedelta64(300, "s"),
            "sensor_ids": tuple(f"s{node}" for node in range(nodes)),
            "adjacency": np.zeros((nodes, nodes), dtype=np.float32),
            "steps_per_day": 288,
            "quantity": "flow",
            "unit": "veh/5min",
            "split": (0.6, 0.2, 0.2),
            "null_value": 0.0,
        }
        return SensorData(**(fields | changes))

    return make
