"""The loader keeps ahead of training: the figure of ``bench/loader.py``, on generated traffic."""

import loader
import pytest

from stlora_kernels.training.config import TrainConfig


@pytest.mark.slow
def test_the_loader_delivers_twenty_times_what_the_stgcn_trainer_consumes():
    measured = loader.rows(TrainConfig(dataset="synthetic", backbone="stgcn"), batches=30, steps=4)
    assert [row["values"] for row in measured] == ["in memory", "mapped"]
    for row in measured:
        assert row["times as many"] >= 20, row
