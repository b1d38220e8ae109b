"""A data set and a run small enough to train in a second."""

from dataclasses import replace
from pathlib import Path

import pytest

from stlora_kernels.training.config import AdapterConfig, SyntheticConfig, TrainConfig

SYNTHETIC = ["--synthetic.nodes=5", "--synthetic.steps=320"]
MODEL = ["--epochs=2", "--adapter.layers=1", "--adapter.rank=2", "--adapter.hidden=8"]


@pytest.fixture
def tiny_model(tmp_path: Path) -> list[str]:
    """Options of a tiny model that keeps its result in ``tmp_path / "run"``."""
    return [*MODEL, f"--output={tmp_path / 'run'}"]


@pytest.fixture
def tiny_options(tiny_model: list[str]) -> list[str]:
    """The same on tiny generated data."""
    return [*SYNTHETIC, *tiny_model]


@pytest.fixture
def tiny(tmp_path: Path) -> TrainConfig:
    """The configuration that ``tiny_options`` make, with the adapter."""
    return replace(
        TrainConfig(),
        stlora=True,
        synthetic=SyntheticConfig(nodes=5, steps=320),
        epochs=2,
        adapter=AdapterConfig(layers=1, rank=2, hidden=8),
        output=tmp_path / "run",
    )
