"""Graphs as csv: matrices with and without ids, and lists of edges."""

import logging

import numpy as np
import pytest

from stlora_kernels.data.graph import gaussian_kernel
from stlora_kernels.data.readers import read_graph_csv, read_road_csv
from stlora_kernels.errors import InputError

IDS = ("a", "b", "c")
WEIGHTS = [[0, 1, 0], [0.5, 0, 2], [0, 0, 0]]
INF = np.inf


def write(path, *lines: str):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["0,1,0", "0.5,0,2", "0,0,0"], id="bare-matrix"),
        pytest.param(["a,b,c", "0,1,0", "0.5,0,2", "0,0,0"], id="header"),
        pytest.param(["c,a,b", "0,0,0", "0,0,1", "2,0.5,0"], id="header-in-other-order"),
        pytest.param([",a,b,c", "a,0,1,0", "b,0.5,0,2", "c,0,0,0"], id="header-and-first-column"),
        pytest.param(["id,b,x,a,c", "b,0,9,0.5,2", "x,9,9,9,9", "a,1,9,0,0", "c,0,9,0,0"], id="one-sensor-more"),
        pytest.param(["from,to,weight", "a,b,1", "b,a,0.5", "b,c,2"], id="edges"),
        pytest.param(["From,To,Weight", "b,c,2", "b,a,0.5", "a,b,1", "x,a,7"], id="edges-of-other-sensors-too"),
    ],
)
def test_every_table_gives_the_same_graph(tmp_path, lines):
    graph = read_graph_csv(write(tmp_path / "g.csv", *lines), IDS)
    assert graph.dtype == np.float32
    assert graph.tolist() == WEIGHTS


def test_the_same_edge_twice_is_harmless(tmp_path):
    path = write(tmp_path / "g.csv", "from,to,weight", "a,b,1", "b,a,0.5", "a,b,1.0", "b,c,2")
    assert read_graph_csv(path, IDS).tolist() == WEIGHTS


def test_numeric_ids_in_a_header_are_matched_too(tmp_path):
    path = write(tmp_path / "g.csv", "20,10", "0,5", "0,0")
    assert read_graph_csv(path, ("10", "20")).tolist() == [[0, 0], [5, 0]]


def test_taking_sensors_by_position_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    read_graph_csv(write(tmp_path / "g.csv", "0,1", "0,0"), ("a", "b"))
    assert "names no sensors" in caplog.text


def test_edges_without_a_third_column_weigh_one(tmp_path):
    graph = read_graph_csv(write(tmp_path / "g.csv", "from,to", "a,b", "c,a"), IDS)
    assert graph.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("column", ["cost", "distance"])
def test_distances_pass_through_the_gaussian_kernel(tmp_path, column, caplog):
    path = write(tmp_path / "g.csv", f"from,to,{column}", "a,a,0", "a,b,3", "b,c,1")
    expected = gaussian_kernel(np.array([[0, 3, INF], [INF, INF, 1], [INF, INF, INF]]))
    assert read_graph_csv(path, IDS).tolist() == expected.tolist()
    assert not caplog.text


@pytest.mark.parametrize("header", ["from,to,weight", "from,to,distance"])
def test_edges_of_sensors_that_the_data_lack_are_counted(tmp_path, caplog, header):
    path = write(tmp_path / "g.csv", header, "a,a,0", "a,b,1", "b,x,2", "x,y,3")
    read_graph_csv(path, IDS)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert (
        "2 of 4 edges kept, 2 left out that name sensors which the data lack; sensors of the data without an edge: 1"
        in caplog.text
    )


def test_losing_a_sensors_last_edge_to_the_kernel_is_said(tmp_path, caplog):
    path = write(tmp_path / "g.csv", "from,to,distance", "a,b,900", "b,c,1000")
    assert not read_graph_csv(path, IDS).any()
    assert "0 of 2 distances are short enough for an edge, and 2 sensors lose their last one" in caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param([""], "is empty", id="empty"),
        pytest.param(["0,1,0", "1,0,1"], "a table of 2 x 3, expected a square matrix", id="not-square"),
        pytest.param(["0,1", "1"], "line 2: 1 cells, expected 2", id="ragged"),
        pytest.param(["0,1", "1,much"], "line 2, column 2: 'much' is not a number", id="text"),
        pytest.param(
            ["a,b,c,c", "0,1,0,0", "1,0,1,1", "0,0,0,0", "0,0,0,0"], "g.csv: two sensors have the id 'c'", id="twice"
        ),
        pytest.param(["a,b", "0,1", "1,0"], "graph of 2 sensors lacks 1 of the data's 3: c", id="lacks-a-sensor"),
        pytest.param([",a,b,c", "a,0,1,0", "c,0,0,0", "b,0,0,0"], "line 3: row of sensor 'c'", id="rows-not-as-header"),
        pytest.param(["from,to,weight"], "has no edges", id="no-edges"),
        pytest.param(["from,to,weight", "x,y,1"], "no edge joins two of the 3 sensors a, b, c", id="strangers"),
        pytest.param(["from,to,weight", "a,b,-1"], "line 2, column 3: '-1'", id="negative"),
        pytest.param(["from,to,weight", "a,b,"], "line 2, column 3: ''", id="missing"),
        pytest.param(["from,to,weight", "a,b,inf"], "line 2, column 3: 'inf'", id="infinite"),
        pytest.param(
            ["from,to,weight", "a,b,1", "a,b,7"], "line 3: edge a,b is 7 here and 1 before", id="edge-of-two-weights"
        ),
        pytest.param(["from,to,length", "a,b,1"], "columns from,to,length", id="unknown-third-column"),
        pytest.param(["from,to,weight,x", "a,b,1,2"], "columns from,to,weight,x", id="four-columns"),
        pytest.param(
            ["from,to,cost", "a,b,5", "b,c,5"],
            "g.csv: the Gaussian kernel needs distances that differ",
            id="distances-all-equal",
        ),
    ],
)
def test_what_is_no_graph_of_these_sensors_is_refused(tmp_path, lines, message):
    with pytest.raises(InputError) as error:
        read_graph_csv(write(tmp_path / "g.csv", *lines), IDS)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_for_data_with_an_id_twice_is_refused(tmp_path):
    path = write(tmp_path / "g.csv", "from,to,weight", "a,b,1", "b,c,1")
    with pytest.raises(InputError, match=r"g\.csv, the data it is for: two sensors have the id 'b'"):
        read_graph_csv(path, ("a", "b", "b", "c"))


@pytest.mark.parametrize("header", [["from,to,cost"], ["from,to,distance"], []], ids=["cost", "distance", "none"])
def test_road_distances_are_read_with_and_without_header(tmp_path, header):
    path = write(tmp_path / "d.csv", *header, "1,2,0.5", "2,3,4", "")
    roads = read_road_csv(path)
    assert roads.to_matrix(("3", "2", "1"), absent=INF).tolist() == [
        [INF, INF, INF],
        [4, INF, INF],
        [INF, 0.5, INF],
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param(["from,to,cost"], "has no edges", id="only-a-header"),
        pytest.param(
            ["from,to,speed", "1,2,3"],
            "line 1: columns from,to,speed, expected from,to,cost or from,to,distance",
            id="another-third-column",
        ),
        pytest.param(["To,From,cost", "1,2,3"], "line 1: columns To,From,cost, expected from,to", id="swapped"),
        pytest.param(["1,2"], "line 1: 2 cells, expected from,to,cost", id="two-columns"),
        pytest.param(["1,2,3", "1,2,x"], "line 2, column 3: 'x' is not a number", id="text"),
        pytest.param(["1,2,-3"], "line 1, column 3: '-3'", id="negative"),
    ],
)
def test_broken_road_tables_are_refused(tmp_path, lines, message):
    with pytest.raises(InputError) as error:
        read_road_csv(write(tmp_path / "d.csv", *lines))
    assert message in str(error.value)
    assert "d.csv" in str(error.value)
