"""Adjacency pickles: of every numpy and pickle generation, broken, and hostile."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from stlora_kernels.data.readers import read_graph_pickle
from stlora_kernels.errors import InputError, MissingFileError

IDS = ["773869", "767541"]
INDEX = {"773869": 0, "767541": 1}
MATRIX = np.array([[1, 0.5], [0, 1]], dtype=np.float32)

# What Python 2 and numpy 1 wrote: text and raw bytes are both plain strings, some of them not ASCII.
PYTHON2 = (
    b"(lp0\n(lp1\nS'773869'\np2\naS'767541'\np3\naa(dp4\ng2\nI0\nsg3\nI1\nsa"
    b"cnumpy.core.multiarray\n_reconstruct\np5\n(cnumpy\nndarray\np6\n(I0\ntp7\nS'b'\np8\ntp9\nRp10\n"
    b"(I1\n(I2\nI2\ntp11\ncnumpy\ndtype\np12\n(S'f4'\np13\nI0\nI1\ntp14\nRp15\n"
    b"(I3\nS'<'\np16\nNNNI-1\nI-1\nI0\ntp17\nbI00\n"
    b"S'\\x00\\x00\\x80?\\x00\\x00\\x00?\\x00\\x00\\x00\\x00\\x00\\x00\\x80?'\np18\ntp19\nba."
)


class Call:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def dump(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param(MATRIX, id="float32"),
        pytest.param(MATRIX.astype(">f8"), id="big-endian"),
        pytest.param(np.asfortranarray(MATRIX), id="columns-first"),
        pytest.param((MATRIX > 0).astype(np.int64), id="int64"),
        pytest.param(MATRIX > 0, id="bool"),
    ],
)
def test_numpy_pickles_of_every_protocol_are_read(tmp_path, protocol, matrix):
    graph, ids = read_graph_pickle(dump(tmp_path / "a.pkl", [IDS, INDEX, matrix], protocol))
    assert ids == tuple(IDS)
    assert graph.dtype == np.float32
    np.testing.assert_array_equal(graph, matrix)


def test_a_pickle_of_python_2_is_read(tmp_path):
    (tmp_path / "a.pkl").write_bytes(PYTHON2)
    graph, ids = read_graph_pickle(tmp_path / "a.pkl")
    assert ids == tuple(IDS)
    np.testing.assert_array_equal(graph, MATRIX)


@pytest.mark.parametrize("ids", [[b"1", b"2"], [1, 2]], ids=["bytes", "numbers"])
def test_ids_become_text(tmp_path, ids):
    assert read_graph_pickle(dump(tmp_path / "a.pkl", (ids, {}, MATRIX)))[1] == ("1", "2")


def test_an_index_that_contradicts_the_list_is_refused(tmp_path):
    path = dump(tmp_path / "a.pkl", [IDS, {"773869": 1, "767541": 0}, MATRIX])
    with pytest.raises(InputError, match=r"a\.pkl: sensor '773869' is number 0 of the list, and 1 in id_to_index"):
        read_graph_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("where", ["instead", "as-an-id", "in-the-index", "as-the-matrix"])
def test_a_hostile_pickle_is_refused_before_it_runs(tmp_path, protocol, where):
    marker = tmp_path / "marker"
    attack = Call(os.system, f"touch {marker}")
    content = {
        "instead": attack,
        "as-an-id": [[attack], {}, MATRIX],
        "in-the-index": [IDS, {"a": attack}, MATRIX],
        "as-the-matrix": [IDS, INDEX, attack],
    }[where]
    with pytest.raises(InputError, match=r"a\.pkl asks for '(posix|nt)\.system'.*not opened") as error:
        read_graph_pickle(dump(tmp_path / "a.pkl", content, protocol))
    assert not marker.exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("program", "name"),
    [
        pytest.param(b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval", id="eval"),
        pytest.param(b"(S'1'\nibuiltins\nexec\n.", "builtins.exec", id="old-instance-opcode"),
        pytest.param(b"cnumpy\nload\n(S'x'\ntR.", "numpy.load", id="other-numpy-name"),
        pytest.param(b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "__globals__", id="dotted-name"),
        pytest.param(b"c__main__\n__dict__\n.", "__main__.__dict__", id="main"),
    ],
)
def test_any_other_name_is_refused(tmp_path, program, name):
    (tmp_path / "a.pkl").write_bytes(program)
    with pytest.raises(InputError, match=name):
        read_graph_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([IDS, INDEX, np.array([[{}, []]], dtype=object)], id="array-of-objects"),
        pytest.param([IDS, INDEX, np.zeros(2, dtype=[("a", "f4"), ("b", "O")])], id="structured-array"),
        pytest.param([IDS, INDEX, np.array(["a", "b"])], id="array-of-text"),
        pytest.param([IDS, INDEX, MATRIX.tolist()], id="matrix-is-a-list"),
        pytest.param([IDS, INDEX, INDEX], id="matrix-is-a-dict"),
        pytest.param([IDS, INDEX], id="two-things"),
        pytest.param([[["a"], ["b"]], INDEX, MATRIX], id="nested-ids"),
        pytest.param(MATRIX, id="a-bare-matrix"),
        pytest.param(None, id="nothing"),
        pytest.param(OrderedDict(a=1), id="another-class"),
    ],
)
def test_other_content_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"a\.pkl") as error:
        read_graph_pickle(dump(tmp_path / "a.pkl", content))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "state",
    [
        pytest.param((1, (10**9, 10**9), np.dtype("f4"), False, b"abcd"), id="huge-shape"),
        pytest.param((1, (3, 3), np.dtype("f4"), False, b"abcd"), id="too-few-bytes"),
        pytest.param((1, (1,), np.dtype("f4"), False, 7), id="bytes-are-a-number"),
        pytest.param((1, (1,), "f4", False, b"abcd"), id="type-is-text"),
        pytest.param((1,), id="short-state"),
    ],
)
def test_a_forged_array_state_is_an_input_error(tmp_path, state):
    class Forged:
        def __reduce__(self):
            reconstruct = np.zeros(1).__reduce__()[0]
            return reconstruct, (np.ndarray, (0,), b"b"), state

    with pytest.raises(InputError, match=r"a\.pkl cannot be read as an adjacency pickle"):
        read_graph_pickle(dump(tmp_path / "a.pkl", [IDS, INDEX, Forged()]))


@pytest.mark.parametrize("keep", [0, 1, 20, 0.5, 0.99], ids=["empty", "1-byte", "20-bytes", "half", "nearly-all"])
def test_a_truncated_pickle_is_an_input_error(tmp_path, keep):
    path = dump(tmp_path / "a.pkl", [IDS, INDEX, MATRIX])
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match=r"a\.pkl cannot be read as an adjacency pickle") as error:
        read_graph_pickle(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"(lp4000000000\n.", id="memo"),
        pytest.param(b"\x80\x02]r\xff\xff\xff\xff.", id="memo-of-protocol-2"),
        pytest.param(b"\x80\x05\x96" + (2**60).to_bytes(8, "little") + b"abc.", id="bytearray"),
        pytest.param(b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"abc.", id="bytes"),
        pytest.param(b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"abc.", id="frame"),
    ],
)
def test_sizes_a_pickle_claims_take_no_memory(tmp_path, program):
    (tmp_path / "a.pkl").write_bytes(program)
    before = peak_memory()
    with pytest.raises(InputError, match=r"a\.pkl"):
        read_graph_pickle(tmp_path / "a.pkl")
    assert peak_memory() - before < 100 * 2**20


def peak_memory() -> int:
    """Bytes this process has needed so far."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_random_bytes_are_an_input_error(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(200):
        (tmp_path / "a.pkl").write_bytes(rng.bytes(rng.integers(1, 60)))
        with pytest.raises(InputError):
            read_graph_pickle(tmp_path / "a.pkl")


def test_a_missing_file_is_named_with_its_path(tmp_path):
    with pytest.raises(MissingFileError, match=str(tmp_path / "a.pkl")):
        read_graph_pickle(tmp_path / "a.pkl")
