"""--graph: what the model is given, and what it must not know."""

from dataclasses import replace

import numpy as np
import pytest

from stlora_kernels.data import load_dataset
from stlora_kernels.data.graph import correlation_graph
from stlora_kernels.errors import InputError
from stlora_kernels.training import experiment
from stlora_kernels.training.config import SyntheticConfig, TrainConfig
from stlora_kernels.training.experiment import load_data, train

CONFIG = TrainConfig(graph="correlation", synthetic=SyntheticConfig(nodes=12, steps=600))


def with_values(monkeypatch, change):
    """Loading as it is, with the values changed in place."""

    def load(*args, **options):
        data = load_dataset(*args, **options)
        change(data.values)
        return data

    monkeypatch.setattr(experiment, "load_dataset", load)


def test_correlation_knows_the_training_inputs_alone(monkeypatch):
    data = load_data(CONFIG)
    inputs = len(data.train) + 11
    np.testing.assert_array_equal(data.data.adjacency, correlation_graph(data.data.values[:inputs, :, 0]))
    noise = np.random.default_rng(0).uniform(0, 1e4, data.data.values.shape).astype(np.float32)

    with_values(monkeypatch, lambda values: np.copyto(values[inputs:], noise[inputs:]))
    np.testing.assert_array_equal(load_data(CONFIG).data.adjacency, data.data.adjacency)
    with_values(monkeypatch, lambda values: np.copyto(values[inputs - 1 :], noise[inputs - 1 :]))
    assert not np.array_equal(load_data(CONFIG).data.adjacency, data.data.adjacency)


def test_correlation_leaves_out_the_null_value(monkeypatch):
    with_values(monkeypatch, lambda values: np.copyto(values[::3, :6], 0))
    kept, dropped = load_data(CONFIG), load_data(replace(CONFIG, null_value=0.0))
    assert not np.allclose(kept.data.adjacency, dropped.data.adjacency, atol=0.05)


@pytest.mark.parametrize("option", ["adjacency", "locations"])
def test_correlation_is_made_of_no_file(option, tmp_path):
    with pytest.raises(InputError, match=f"--{option} is not an option of --graph correlation"):
        load_data(replace(CONFIG, **{option: tmp_path / "file.csv"}))


@pytest.mark.parametrize(
    ("graph", "facts"),
    [
        ("dataset", "graph (dataset) of 64 nodes, 68 undirected edges, 0 isolated"),
        ("identity", "graph (identity) of 64 nodes, 0 undirected edges, 64 isolated"),
    ],
)
def test_the_log_opens_with_the_graph(graph, facts, tmp_path, capsys):
    config = TrainConfig(graph=graph, synthetic=SyntheticConfig(steps=600), epochs=1, max_batches=1, output=tmp_path)
    train(config)
    assert facts in capsys.readouterr().err.splitlines()[0]
