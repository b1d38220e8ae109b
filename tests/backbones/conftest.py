"""What every test of a backbone starts from."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def in_double_precision() -> Iterator[None]:
    """Models and windows in float64, the same in every run."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
