"""Adjacency from distances, and the published graphs' sizes."""

import csv

import numpy as np
import pytest

from stlora_kernels.data.graph import binary_symmetric, gaussian_kernel, select_sensors
from stlora_kernels.data.readers import read_graph_pickle, read_road_csv
from stlora_kernels.errors import InputError

INF = np.inf


def test_gaussian_kernel_is_its_formula():
    distances = np.array([[0, 1, INF], [2, 0, 9], [INF, 3, 0]])
    std = np.array([0, 1, 2, 0, 9, 3, 0]).std()
    weights = gaussian_kernel(distances)
    assert weights.dtype == np.float32
    assert weights[0, 1] == pytest.approx(np.exp(-((1 / std) ** 2)))
    assert weights[1, 0] == pytest.approx(np.exp(-((2 / std) ** 2)))
    assert np.diag(weights).tolist() == [1, 1, 1]
    assert weights[0, 2] == 0  # no road
    assert weights[1, 2] == 0  # exp(-(9/3)^2) is below the threshold


def test_gaussian_kernel_keeps_the_direction():
    weights = gaussian_kernel(np.array([[0, 1], [INF, 3]]))
    assert weights[0, 1] > 0
    assert weights[1, 0] == 0


@pytest.mark.parametrize(
    "distances",
    [
        pytest.param([[0, -1], [2, 0]], id="negative"),
        pytest.param([[0, np.nan], [2, 0]], id="nan"),
        pytest.param([[INF, INF], [INF, INF]], id="no-road-at-all"),
        pytest.param([[5, 5], [INF, INF]], id="all-equal"),
    ],
)
def test_gaussian_kernel_refuses(distances):
    with pytest.raises(InputError, match="distances"):
        gaussian_kernel(np.array(distances))


def test_binary_symmetric_has_both_directions_and_no_loops():
    graph = binary_symmetric(np.array([[True, True, False], [False, False, False], [True, False, True]]))
    assert graph.tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert graph.dtype == np.float32


def test_select_sensors_reorders_rows_and_columns_alike(tmp_path):
    matrix = np.arange(9.0).reshape(3, 3)
    assert select_sensors(matrix, ("a", "b", "c"), ("c", "a"), tmp_path).tolist() == [[8, 6], [2, 0]]


def test_select_sensors_names_what_the_graph_lacks(tmp_path):
    with pytest.raises(InputError, match="graph of 2 sensors lacks 1 of the data's 3: z"):
        select_sensors(np.eye(2), ("a", "b"), ("b", "z", "a"), tmp_path)


@pytest.mark.parametrize(
    ("name", "num_nodes", "nonzeros"),
    [
        # 547 rows, one of them a self-loop, which is dropped.
        pytest.param("PEMS03", 358, 2 * 546, id="PEMS03"),
        pytest.param("PEMS04", 307, 2 * 340, id="PEMS04"),
        pytest.param("PEMS07", 883, 2 * 866, id="PEMS07"),
        # 295 rows, 277 of them different, 3 of these the reverse of another.
        pytest.param("PEMS08", 170, 2 * 274, id="PEMS08"),
    ],
)
def test_pems_graphs_have_the_published_size(real_data, name, num_nodes, nonzeros):
    if name == "PEMS03":
        ids = tuple((real_data / name / "PEMS03.txt").read_text().split())
    else:
        ids = tuple(str(node) for node in range(num_nodes))
    path = real_data / name / f"{name}.csv"
    graph = binary_symmetric(np.isfinite(read_road_csv(path).to_matrix(ids, absent=INF)))
    assert np.count_nonzero(graph) == nonzeros
    assert (graph == graph.T).all()
    assert graph.any(axis=1).all()  # every sensor has a neighbour, so the ids are those of the nodes


def test_pems08_has_277_different_roads(real_data):
    roads = read_road_csv(real_data / "PEMS08" / "PEMS08.csv")
    assert len(roads.source) == 295
    assert len(set(zip(roads.source, roads.target, strict=True))) == 277


def test_gaussian_kernel_of_all_pems_bay_sensors_has_2694_nonzeros(real_data):
    folder = real_data / "PEMS-BAY"
    with (folder / "graph_sensor_locations_bay.csv").open() as file:
        ids = tuple(row[0] for row in csv.reader(file))
    path = folder / "distances_bay_2017.csv"
    graph = gaussian_kernel(read_road_csv(path).to_matrix(ids, absent=INF))
    assert graph.shape == (325, 325)
    assert np.count_nonzero(graph) == 2694
    # The pickle of 67 of these sensors holds the very same weights.
    published, published_ids = read_graph_pickle(folder / "adj_mx_bay.pkl")
    np.testing.assert_allclose(select_sensors(graph, ids, published_ids, path), published, atol=1e-6)


def test_published_metr_la_graph_has_1722_nonzeros(real_data):
    graph, ids = read_graph_pickle(real_data / "METR-LA" / "adj_mx.pkl")
    assert np.count_nonzero(graph) == 1722
    assert len(ids) == 207
