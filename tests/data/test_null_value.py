"""The value that means missing, where it is given and where steps are averaged."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from stlora_kernels.data import load_dataset
from stlora_kernels.data.registry import DATASETS
from stlora_kernels.errors import InputError
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.experiment import load_data


@pytest.mark.parametrize("null_value", [0.0, "none", "dataset"])
def test_what_means_missing_is_no_part_of_an_average(tmp_path, null_value):
    rows = ["00:00,10,0", "00:05,0,0", "00:10,20,0", "00:15,6,3", "00:20,6,", "00:25,0,0"]
    (tmp_path / "a.csv").write_text("\n".join(["t,x,y", *(f"2024-01-01 {row}" for row in rows)]))
    data = load_dataset(str(tmp_path / "a.csv"), graph="identity", resample=15, null_value=null_value)
    expected = [[15, np.nan], [6, 3]] if null_value == 0 else [[10, 0], [4, 1.5]]
    np.testing.assert_array_equal(data.values[..., 0], expected)
    assert data.null_value == (0 if null_value == 0 else None)


def test_training_averages_without_what_means_missing(tmp_path):
    rows = [f"2024-01-01 00:{minute:02},{minute * (minute % 10 > 0)}" for minute in range(0, 60, 5)]
    (tmp_path / "a.csv").write_text("\n".join(["t,x", *rows]))
    config = TrainConfig(dataset=str(tmp_path / "a.csv"), graph="identity", resample=10, window=1, horizon=1)
    shares = (2.0, 1.0, 1.0)
    measured = np.arange(5, 60, 10)
    np.testing.assert_array_equal(load_data(replace(config, split=shares)).data.values[:, 0, 0], measured / 2)
    task = load_data(replace(config, split=shares, null_value=0.0))
    np.testing.assert_array_equal(task.data.values[:, 0, 0], measured)
    assert task.null_value == 0


def test_what_means_missing_is_that_of_the_target_alone(tmp_path):
    rows = ["00:00,x,4,0", "00:05,x,0,6"]
    (tmp_path / "a.csv").write_text("\n".join(["t,sensor,flow,rain", *(f"2024-01-01 {row}" for row in rows)]))
    data = load_dataset(str(tmp_path / "a.csv"), graph="identity", resample=10, null_value=0)
    assert data.values.tolist() == [[[4, 3]]]


@pytest.mark.parametrize("null_value", [np.nan, np.inf, "zero"])
@pytest.mark.parametrize("name", ["a.csv", "PEMS08", "synthetic"])
def test_what_cannot_mean_missing_is_refused(tmp_path, name, null_value):
    with pytest.raises(InputError, match=f"null_value: got {null_value}, expected a finite number, dataset or none"):
        load_dataset(name, tmp_path, null_value=null_value)


def test_zeros_of_largest_are_averaged_as_the_field_does_it(tmp_path, monkeypatch):
    info = replace(DATASETS["largest-gba"], num_nodes=1, years=(2019,))
    monkeypatch.setitem(DATASETS, "largest-gba", info)
    with h5py.File(tmp_path / info.values_files[0], "w") as file:
        frame = file.create_group("t")
        frame["axis0"] = frame["block0_items"] = np.array([7])
        frame["axis1"] = np.datetime64("2019-01-01", "ns").astype(np.int64) + np.arange(6) * 300 * 10**9
        frame["axis1"].attrs["kind"] = np.bytes_("datetime64")
        frame["block0_values"] = np.array([[0.0], [9.0], [np.nan], [3.0], [6.0], [9.0]])
    data = load_dataset("LargeST-GBA", tmp_path, graph="identity")
    assert data.values[:, 0, 0].tolist() == [4.5, 6]
    assert data.null_value == 0
    assert load_dataset("LargeST-GBA", tmp_path, graph="identity", null_value="none").null_value is None
