"""``load_dataset``: a data set by name."""

from pathlib import Path

from stlora_kernels.data.registry import dataset_names
from stlora_kernels.data.sensor_data import SensorData
from stlora_kernels.data.synthetic import NODES, STEPS, synthetic
from stlora_kernels.errors import InputError


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    adjacency: str | Path | None = None,
    first_step: str | None = None,
    nodes: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
) -> SensorData:
    """Load a data set by name."""
    if name.lower() == "synthetic":
        return synthetic(nodes or NODES, steps or STEPS, seed or 0)
    raise InputError(f"unknown data set {name!r}, expected one of: {', '.join(dataset_names())}")
