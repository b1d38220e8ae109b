"""Adjacency from distances, places and measurements, and the published graphs' sizes."""

import csv
import tracemalloc

import numpy as np
import pytest

from stlora_kernels.data.graph import (
    NEIGHBOURS,
    binary_symmetric,
    correlation_graph,
    gaussian_kernel,
    nearest_neighbours,
    select_sensors,
)
from stlora_kernels.data.graph_facts import graph_facts
from stlora_kernels.data.graph_source import GraphSource
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


def haversine(a, b):
    (lat_a, lon_a), (lat_b, lon_b) = np.radians(a), np.radians(b)
    h = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    return 2 * np.arcsin(np.sqrt(h))


@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("where", ["city", "globe"])
def test_nearest_neighbours_are_nearest_by_great_circle(k, where):
    rng = np.random.default_rng(k)
    span = ((34.0, 34.4), (-118.5, -118.1)) if where == "city" else ((-90, 90), (-180, 180))
    places = np.stack([rng.uniform(low, high, 40) for low, high in span], axis=1)
    expected = np.zeros((40, 40))
    for i, place in enumerate(places):
        arcs = [np.inf if i == j else haversine(place, other) for j, other in enumerate(places)]
        expected[i, np.argsort(arcs)[:k]] = 1
    graph = nearest_neighbours(places, k)
    assert graph.dtype == np.float32
    np.testing.assert_array_equal(graph, np.maximum(expected, expected.T))


def test_neighbours_across_the_date_line():
    graph = nearest_neighbours(np.array([[0, 179.9], [0, -179.9], [0, 178.0], [0, -178.0]]), k=1)
    assert np.argwhere(np.triu(graph)).tolist() == [[0, 1], [0, 2], [1, 3]]


@pytest.mark.parametrize("build", [nearest_neighbours, lambda places, k: correlation_graph(places.T, k=k)])
@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_fewer_sensors_than_neighbours_are_all_joined(build, nodes):
    points = np.array([[1.0, 2.0], [3.0, 4.0], [1.5, 3.0], [2.0, 2.5]])[:nodes]
    assert ((build(points, 8) > 0) == ~np.eye(nodes, dtype=bool)).all()
    with pytest.raises(InputError, match="k is 0"):
        build(points, 0)


def test_sensors_at_one_place_are_not_their_own_neighbours():
    graph = nearest_neighbours(np.array([[34.0, -118.0]] * 5 + [[35.0, -118.0]]), k=2)
    assert not graph.diagonal().any()
    assert (graph.sum(axis=1) >= 2).all()
    assert np.count_nonzero(graph[5]) == 2
    # No sensor chooses more than k, though the tree need not name the sensor itself among the first k + 1.
    assert graph_facts(nearest_neighbours(np.full((30, 2), 34.0), k=2)).edges <= 30 * 2


def test_sensors_that_go_against_each_other_are_not_joined():
    values = np.random.default_rng(0).normal(size=(50, 1)) * [1, -1, 2]
    assert np.argwhere(correlation_graph(values)).tolist() == [[0, 2], [2, 0]]
    a, b = np.random.default_rng(1).normal(size=(2, 5000))
    assert not correlation_graph(np.stack([a, b - a / 2, -a / 2 - b], axis=1)).any()  # each against each


@pytest.mark.parametrize("place", [[90.1, 0], [0, -180.1], [np.nan, 0]], ids=["latitude", "longitude", "nan"])
def test_places_off_the_earth_are_refused(place):
    with pytest.raises(InputError, match=r"latitudes in \[-90, 90\]"):
        nearest_neighbours(np.array([[1, 1], place]))


def test_correlation_is_pearsons_and_keeps_the_k_largest():
    values = np.random.default_rng(0).normal(size=(50, 12)) + np.random.default_rng(1).normal(size=(50, 1))
    r = np.corrcoef(values.T)
    np.fill_diagonal(r, -1)
    expected = np.zeros_like(r)
    for i in range(12):
        best = np.argsort(r[i])[-3:]
        expected[i, best] = r[i, best].clip(0)
    graph = correlation_graph(values, k=3)
    assert graph.dtype == np.float32
    np.testing.assert_allclose(graph, np.maximum(expected, expected.T), atol=1e-5)


@pytest.mark.parametrize(("missing", "null_value"), [(np.nan, None), (np.inf, None), (0.0, 0.0), (-1.0, -1.0)])
def test_what_is_missing_is_no_measurement(missing, null_value):
    rng = np.random.default_rng(0)
    common = rng.normal(60, 5, (400, 1))
    values = common + rng.normal(0, 1, (400, 4))
    there = rng.random((400, 4)) > 0.3
    # By hand: deviations from the mean of what was measured, 0 elsewhere.
    z = np.where(there, values - np.array([values[there[:, i], i].mean() for i in range(4)]), 0)
    expected = (z.T @ z) / np.sqrt(np.outer((z**2).sum(axis=0), (z**2).sum(axis=0)))
    np.fill_diagonal(expected, 0)
    graph = correlation_graph(np.where(there, values, missing), null_value, k=3)
    np.testing.assert_allclose(graph, expected, atol=1e-4)
    if null_value is not None:  # as a measurement it would drown the rest
        assert np.abs(correlation_graph(np.where(there, values, missing), None, k=3) - expected).max() > 0.1


def test_sensors_that_never_change_or_never_measure_are_isolated():
    values = np.random.default_rng(0).normal(size=(30, 1)) + np.random.default_rng(1).normal(0, 0.1, (30, 5))
    values[:, 1], values[:, 3] = 65.1, np.nan
    graph = correlation_graph(values)
    assert graph_facts(graph).isolated == (1, 3)
    assert graph[np.ix_([0, 2, 4], [0, 2, 4])].sum() > 5


def test_a_long_series_is_drawn_from_and_always_alike(monkeypatch):
    common = np.random.default_rng(0).normal(size=(3000, 5))
    values = common[:, [0, 0, 0, 1, 1, 1, 2, 2]] + np.random.default_rng(1).normal(0, 0.3, (3000, 8))
    whole = correlation_graph(values, k=1)
    monkeypatch.setattr("stlora_kernels.data.graph.CORRELATION_PRODUCTS", 500 * 64)
    drawn = correlation_graph(values, k=1)
    np.testing.assert_array_equal(drawn, correlation_graph(values, k=1))
    assert not np.array_equal(drawn, whole)
    np.testing.assert_allclose(drawn.max(axis=1), whole.max(axis=1), atol=0.05)


@pytest.mark.slow
def test_8600_sensors_stay_within_2_gb():
    rng = np.random.default_rng(0)
    places = np.stack([rng.uniform(32, 42, 8600), rng.uniform(-124, -114, 8600)], axis=1)
    values = rng.normal(size=(100, 8600)).astype(np.float32)
    for build, given in ((nearest_neighbours, places), (correlation_graph, values)):
        tracemalloc.start()
        graph = build(given)
        facts = graph_facts(graph)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1e9
        assert facts.isolated == ()
        assert 8600 * NEIGHBOURS / 2 < facts.edges < 8600 * NEIGHBOURS


@pytest.mark.parametrize(
    ("edges", "text", "symmetric", "isolated", "components"),
    [
        pytest.param([(0, 1), (1, 0), (2, 2)], "4 nodes, 1 undirected edges, 2 isolated", True, (2, 3), 3, id="both"),
        pytest.param([(0, 1), (1, 2)], "4 nodes, 2 directed edges, 1 isolated", False, (3,), 2, id="one-way"),
        pytest.param(
            [(i, i) for i in range(4)], "4 nodes, 0 undirected edges, 4 isolated", True, (0, 1, 2, 3), 4, id="loops"
        ),
        pytest.param([(0, 3), (1, 2)], "4 nodes, 2 directed edges, 0 isolated", False, (), 2, id="two-parts"),
    ],
)
def test_graph_facts(edges, text, symmetric, isolated, components):
    adjacency = np.zeros((4, 4), dtype=np.float32)
    for i, j in edges:
        adjacency[i, j] = 0.5
    facts = graph_facts(adjacency)
    assert str(facts) == text
    assert (facts.symmetric, facts.isolated, facts.components) == (symmetric, isolated, components)
    assert facts.nonzeros == len(edges)
    assert facts.self_loops == sum(i == j for i, j in edges)


def test_different_weights_both_ways_are_directed():
    assert not graph_facts(np.array([[0, 0.5], [0.25, 0]], dtype=np.float32)).symmetric


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
    graph = GraphSource("dataset", path, "binary").read(ids)
    assert graph_facts(graph).nonzeros == nonzeros
    assert (graph == graph.T).all()
    assert graph.any(axis=1).all()  # every sensor has a neighbour, so the ids are those of the nodes


@pytest.mark.parametrize(
    ("name", "rows", "different"),
    [("PEMS03", 547, 547), ("PEMS04", 340, 340), ("PEMS07", 866, 866), ("PEMS08", 295, 277)],
)
def test_pems_files_name_the_published_number_of_roads(real_data, name, rows, different):
    roads = read_road_csv(real_data / name / f"{name}.csv")
    assert len(roads.source) == rows
    assert len(set(zip(roads.source, roads.target, strict=True))) == different


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
