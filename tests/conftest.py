"""Shared fixtures."""

import os
from pathlib import Path

import pytest
import torch

# Without a GPU, Triton's kernels run in its interpreter, which has to be asked for before triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def real_data() -> Path:
    """The folder with real measurements (STLORA_DATA); tests that need it are skipped where it is not."""
    folder = os.environ.get("STLORA_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("STLORA_DATA does not name a folder with measurements")
    return Path(folder)
