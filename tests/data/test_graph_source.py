"""Which graph a data set gets, and what is said when its files cannot give it."""

import pickle

import numpy as np
import pytest

from stlora_kernels.data import load_dataset
from stlora_kernels.data.graph import binary_symmetric, gaussian_kernel, nearest_neighbours
from stlora_kernels.errors import InputError, MissingFileError


@pytest.fixture
def own(tmp_path):
    """A csv of three sensors, c far from the others, with a graph, distances and places in other orders."""
    rows = [f"2024-05-04 00:{15 * i},{i},{10 * i},{5 - i}" for i in range(4)]
    (tmp_path / "city.csv").write_text("\n".join(["time,b,a,c", *rows]).replace("00:0,", "00:00,"))
    (tmp_path / "graph.csv").write_text("from,to,weight\na,b,0.5\n")
    (tmp_path / "roads.csv").write_text("from,to,distance\na,b,1\nb,a,2\nb,c,9\n")
    matrix = np.arange(9, dtype=np.float32).reshape(3, 3)  # of c, a, b
    (tmp_path / "graph.pkl").write_bytes(pickle.dumps([["c", "a", "b"], {"c": 0, "a": 1, "b": 2}, matrix]))
    (tmp_path / "places.csv").write_text("sensor_id,latitude,longitude\nc,40,0\na,1,0\nb,1.1,0\n")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "expected"),  # sensors b, a, c
    [
        ({"adjacency": "graph.csv"}, [[0, 0, 0], [0.5, 0, 0], [0, 0, 0]]),
        ({"adjacency": "graph.pkl"}, [[8, 7, 6], [5, 4, 3], [2, 1, 0]]),
        ({"graph": "binary", "adjacency": "graph.csv"}, [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),
        ({"graph": "binary", "adjacency": "roads.csv"}, [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),
        ({"graph": "identity"}, np.eye(3)),
        ({"graph": "neighbours", "locations": "places.csv"}, 1 - np.eye(3)),
    ],
    ids=["dataset", "pickle", "binary", "binary-of-distances", "identity", "neighbours"],
)
def test_graphs_of_ones_own_data(own, options, expected):
    files = {option: own / value if "." in value else value for option, value in options.items()}
    np.testing.assert_array_equal(load_dataset(str(own / "city.csv"), **files).adjacency, expected)


def test_kernel_is_that_of_the_distances(own):
    data = load_dataset(str(own / "city.csv"), graph="kernel", adjacency=own / "roads.csv")
    expected = gaussian_kernel(np.array([[np.inf, 2, 9], [1, np.inf, np.inf], [np.inf] * 3]))
    np.testing.assert_array_equal(data.adjacency, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"city\.csv needs a graph of its sensors: give adjacency"),
        ({"graph": "binary"}, r"city\.csv needs a graph of its sensors: give adjacency"),
        ({"graph": "kernel"}, r"city\.csv needs the distances between its sensors: give adjacency"),
        ({"graph": "neighbours"}, r"city\.csv needs the places of its sensors: give locations"),
        (
            {"graph": "kernel", "adjacency": "graph.csv"},
            r"graph\.csv, line 1: columns from,to,weight, expected from,to,cost or from,to,distance",
        ),
        ({"graph": "identity", "adjacency": "graph.csv"}, "adjacency is not an option of graph 'identity'"),
        ({"graph": "neighbours", "adjacency": "graph.csv"}, "adjacency is not an option of graph 'neighbours'"),
        ({"locations": "places.csv"}, "locations is not an option of graph 'dataset', only of 'neighbours'"),
        ({"graph": "neighbours", "locations": "roads.csv"}, "columns 'from,to,distance', expected sensor_id"),
        ({"graph": "neighbours", "locations": "nothing.csv"}, r"no file .*nothing\.csv"),
        ({"graph": "roads"}, "graph is 'roads', expected one of dataset, binary, kernel, neighbours, identity"),
    ],
)
def test_what_ones_own_data_cannot_give(own, options, message):
    files = {option: own / value if "." in value else value for option, value in options.items()}
    with pytest.raises(InputError, match=message):
        load_dataset(str(own / "city.csv"), **files)


def test_the_generated_set_has_edges_but_no_distances_or_places():
    data = load_dataset("synthetic", nodes=20, steps=30)
    same = load_dataset("synthetic", nodes=20, steps=30, graph="binary")
    np.testing.assert_array_equal(same.adjacency, data.adjacency)
    assert (load_dataset("synthetic", nodes=20, steps=30, graph="identity").adjacency == np.eye(20)).all()
    for graph, lacks in (("kernel", "distances"), ("neighbours", "coordinates")):
        with pytest.raises(InputError, match=f"graph '{graph}': the sensors of data set 'synthetic' have no {lacks}"):
            load_dataset("synthetic", nodes=20, steps=30, graph=graph)


def test_the_suffix_of_a_graph_may_be_in_upper_case(own):
    (own / "graph.csv").rename(own / "graph.CSV")
    data = load_dataset(str(own / "city.csv"), adjacency=own / "graph.CSV")
    np.testing.assert_array_equal(data.adjacency, [[0, 0, 0], [0.5, 0, 0], [0, 0, 0]])


def test_the_fields_own_distances_may_be_those_of_more_sensors(real_data, caplog):
    load_dataset("PEMS-BAY", real_data, graph="kernel")
    assert "left out" not in caplog.text
    load_dataset("PEMS-BAY", real_data, graph="kernel", adjacency=real_data / "PEMS-BAY" / "distances_bay_2017.csv")
    assert "left out that name sensors which the data lack" in caplog.text


def test_pems_bay_in_every_graph_its_files_give(real_data):
    published, kernel, binary, near = (
        load_dataset("PEMS-BAY", real_data, graph=graph) for graph in ("dataset", "kernel", "binary", "neighbours")
    )
    assert np.count_nonzero(published.adjacency) == 196
    assert np.count_nonzero(kernel.adjacency) == 209  # the same distances; the width is that of 67 sensors, not of 325
    np.testing.assert_array_equal(binary.adjacency, binary_symmetric(published.adjacency > 0))
    places = dict[str, list[float]]()
    for row in (real_data / "PEMS-BAY" / "graph_sensor_locations_bay.csv").read_text().split():
        sensor, *place = row.split(",")
        places[sensor] = [float(degrees) for degrees in place]
    np.testing.assert_array_equal(
        near.adjacency, nearest_neighbours(np.array([places[sensor] for sensor in near.sensor_ids]))
    )


def test_what_registered_sets_cannot_give(real_data):
    with pytest.raises(InputError, match="graph 'neighbours': PEMS08 comes without coordinates; give locations"):
        load_dataset("PEMS08", real_data, graph="neighbours")
    with pytest.raises(InputError, match="graph 'kernel': SZ-TAXI comes without distances; give adjacency"):
        load_dataset("SZ-TAXI", real_data, graph="kernel")
    with pytest.raises(MissingFileError, match=r"METR-LA: no distances_la_2012\.csv, looked for"):
        load_dataset("METR-LA", real_data, graph="kernel")


def test_pems08_by_distance(real_data):
    data = load_dataset("PEMS08", real_data, graph="kernel")
    weights = data.adjacency[data.adjacency > 0]
    assert 100 < weights.size < 277  # the kernel drops the longer of the neighbours' distances
    assert weights.min() >= 0.1
