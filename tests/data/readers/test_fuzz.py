"""Whatever a file holds: measurements, or an InputError of one line; never a crash, a hang, or code that runs."""

import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from stlora_kernels.data.converted import read_converted
from stlora_kernels.data.inspection.lenient import read_leniently
from stlora_kernels.data.readers import (
    open_series_csv,
    read_graph_csv,
    read_graph_pickle,
    read_locations_csv,
    read_matrix_npy,
    read_npz,
    read_pandas_h5,
    read_road_csv,
)
from stlora_kernels.errors import InputError

given = hypothesis.given

# The same examples every time; the deadline, in ms, is for what hangs.
SETTINGS = {"deadline": 10_000, "database": None, "derandomize": True}

Read = Callable[[Path], Any]
IDS = ("a", "b", "c")


def npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, data=np.arange(24.0).reshape(6, 2, 2))
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.eye(3))
    return file.getvalue()


def h5() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        frame = opened.create_group("df")
        frame["axis0"] = frame["block0_items"] = np.array([b"a", b"b", b"c"])
        frame["axis1"] = np.arange(4) * 300 * 10**9
        frame["axis1"].attrs["kind"] = np.bytes_("datetime64")
        frame["block0_values"] = np.ones((4, 3))
    return file.getvalue()


def read_folder_of(path: Path) -> Any:
    folder = path.parent / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "data.json").write_bytes(path.read_bytes())
    np.save(folder / "values.npy", np.ones((3, 2, 1), np.float32))
    np.save(folder / "adjacency.npy", np.eye(2))
    return read_converted(folder)


def read_as_check_does(path: Path) -> Any:
    return read_leniently(path.replace(path.with_suffix(".csv")))


ABOUT = {
    "format": 1,
    **dict.fromkeys(("name", "quantity", "unit"), "x"),
    "inputs": "all",
    "split": [6, 2, 2],
    "null_value": None,
    "synthetic": False,
    "steps_per_day": 288,
    "num_steps": 3,
    "times": [["2024-01-01T00:00:00", 3]],
    "clock": None,
    "sensor_ids": ["a", "b"],
}

READERS: dict[str, tuple[Read, bytes]] = {
    "npz": (read_npz, npz()),
    "npy": (read_matrix_npy, npy()),
    "h5": (read_pandas_h5, h5()),
    "pickle": (read_graph_pickle, pickle.dumps([["a", "b"], {"a": 0, "b": 1}, np.eye(2)], protocol=2)),
    "pickle5": (read_graph_pickle, pickle.dumps([["a", "b"], {"a": 0, "b": 1}, np.eye(2)], protocol=5)),
    "wide-csv": (open_series_csv, b"t,a,b\n2024-01-01 00:00:00-08:00,1,2\n2024-01-01 00:05:00-08:00,,4e1\n"),
    "long-csv": (open_series_csv, b"t,sensor,v\n2024-01-01 00:00,a,2\n2024-01-01 00:05,b,4\n"),
    "matrix-csv": (lambda path: read_graph_csv(path, IDS), b",a,b,c\na,0,1,0\nb,2,0,0\nc,0,0,1\n"),
    "edges-csv": (lambda path: read_graph_csv(path, IDS), b"from,to,distance\na,b,3\nb,c,1\n"),
    "roads-csv": (read_road_csv, b"from,to,cost\n1,2,3.5\n2,3,4\n"),
    "locations-csv": (
        lambda path: read_locations_csv(path, IDS[:2]),
        b"index,sensor_id,latitude,longitude\n0,a,34.1,-118.2\n1,b,34.2,-118.3\n",
    ),
    "check's-csv": (read_as_check_does, b"t,a,b\n2024-01-01 00:00:00-08:00,1,2\n2024-01-01 00:05:00-08:00,x,4e1\n"),
    "folder": (read_folder_of, json.dumps(ABOUT).encode()),
}


def read_or_refuse(read: Read, path: Path) -> None:
    message = "readable"
    try:
        read(path)
    except InputError as error:
        message = str(error)
    assert message.splitlines() == [message]


def damaged(content: bytes) -> Any:
    """The content cut off, with bytes changed, or with a piece of it or of anything else put in."""
    place = st.integers(0, len(content))
    change = st.tuples(place, place, st.binary(max_size=12))

    def damage(changes: list[tuple[int, int, bytes]]) -> bytes:
        broken = content
        for start, length, new in changes:
            broken = broken[:start] + new + broken[start + length % 16 :]
        return broken

    return st.one_of(
        st.lists(change, min_size=1, max_size=4).map(damage),
        place.map(lambda end: content[:end]),
        st.binary(max_size=99),
    )


@pytest.mark.parametrize("name", READERS)
def test_the_undamaged_file_is_read(tmp_path, name):
    read, content = READERS[name]
    (tmp_path / "file").write_bytes(content)
    read(tmp_path / "file")


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, name):
    read, content = READERS[name]

    @hypothesis.settings(max_examples=50, **SETTINGS)
    @given(damaged(content))
    def check(broken: bytes) -> None:
        (tmp_path / "file").write_bytes(broken)
        read_or_refuse(read, tmp_path / "file")

    check()


TOKENS = st.sampled_from(
    [*"0123456789.-+:,;\n\r\"' \tTZe", "2024-01-01", "nan", "inf", "from,to", "sensor", "1e999", "\0"]
)


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith("csv")])
def test_any_text_is_read_or_refused_in_one_line(tmp_path, name):
    read = READERS[name][0]

    @hypothesis.settings(max_examples=50, **SETTINGS)
    @given(st.sampled_from(["", "t,sensor,v\n", "t,a\n2024-01-01", "from,to,cost\n"]), st.lists(TOKENS, max_size=40))
    def check(start: str, tokens: list[str]) -> None:
        (tmp_path / "file").write_text(start + "".join(tokens), encoding="utf-8", newline="")
        read_or_refuse(read, tmp_path / "file")

    check()


def test_any_pickle_program_is_read_or_refused_and_calls_nothing(tmp_path):
    marker = tmp_path / "marker"
    call = f"cposix\nsystem\n(S'touch {marker}'\ntR".encode()
    pieces = [call, b"cbuiltins\neval\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n"]
    pieces += [b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.numeric\n_frombuffer\n"]
    pieces += [bytes([code]) for code in b"(.0123]})aelstubRNQq\x80\x81\x85\x86\x87\x88\x94\x93\x92\x8c\x8e\x95"]
    pieces += [
        b"\x80\x02",
        b"K\x03",
        b"U\x02f4",
        b"X\x02\x00\x00\x00f4",
        b"I99999999\n",
        b"J\xff\xff\xff\x7f",
        b"S'f8'\n",
    ]

    @hypothesis.settings(max_examples=150, **SETTINGS)
    @given(st.lists(st.sampled_from(pieces), max_size=25))
    def check(program: list[bytes]) -> None:
        (tmp_path / "file").write_bytes(b"".join(program) + b".")
        read_or_refuse(read_graph_pickle, tmp_path / "file")

    check()
    assert not marker.exists()


DTYPES = st.sampled_from(["<f8", "<f4", "<i8", "|b1", "<c16", "|S3", "<U2", "<M8[s]", "|O", "|V8", ">f8"])


def test_arrays_of_any_shape_and_type_are_read_or_refused(tmp_path):
    @hypothesis.settings(max_examples=25, **SETTINGS)
    @given(st.lists(st.integers(0, 4), max_size=5), DTYPES)
    def check(shape: list[int], dtype: str) -> None:
        array = np.zeros(shape, dtype)
        np.savez(tmp_path / "a.npz", data=array)
        read_or_refuse(read_npz, tmp_path / "a.npz")
        np.save(tmp_path / "a.npy", array)
        read_or_refuse(read_matrix_npy, tmp_path / "a.npy")
        if array.dtype.kind not in "OMU":
            (tmp_path / "a.h5").write_bytes(h5())
            for name in ("axis0", "axis1", "block0_items", "block0_values"):
                with h5py.File(tmp_path / "b.h5", "w") as file:
                    with h5py.File(tmp_path / "a.h5") as whole:
                        whole.copy("df", file)
                    kind = file["df"][name].attrs.get("kind", b"")
                    del file["df"][name]
                    file["df"][name] = array
                    file["df"][name].attrs["kind"] = kind
                read_or_refuse(read_pandas_h5, tmp_path / "b.h5")

    check()


def header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    steps = 2 * 10**8  # 1.6 GB of zeros in 1.6 MB
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("data.npy", "w") as file,
    ):
        file.write(header((steps, 1)))
        file.write(bytes(10**6))
    monkeypatch.setattr(np, "load", _guarded(np.load))
    with pytest.raises(InputError, match=r"claim to hold float64 \[200000000, 1\], 1\.5 GiB"):
        read_npz(tmp_path / "a.npz")


def _guarded(load: Callable[..., Any]) -> Callable[..., Any]:
    """np.load whose archives refuse to unpack."""

    def guarded(*args: Any, **options: Any) -> Any:
        archive = load(*args, **options)
        kind = type("Guarded", (type(archive),), {"__getitem__": lambda *_: pytest.fail("it was unpacked")})
        archive.__class__ = kind
        return archive

    return guarded


@pytest.mark.parametrize("shape", [(10**9, 10**9), (2**62, 2**62), (10**6, 10**6, 5)], ids=str)
def test_shapes_that_files_only_claim_take_no_memory(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("data.npy", header(shape))
    (tmp_path / "a.npy").write_bytes(header(shape))
    with pytest.raises(InputError, match="claim to hold"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npy is broken: float64 .* bytes, it holds 0"):
        read_matrix_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["axis0", "axis1", "block0_items", "block0_values"])
def test_h5_arrays_of_which_nothing_is_stored_take_no_memory(tmp_path, name):
    path = tmp_path / "a.h5"
    path.write_bytes(h5())
    with h5py.File(path, "a") as file:
        old = file["df"][name]
        shape = (10**10,) if old.ndim == 1 else (10**5, 10**5)
        dtype, kind = old.dtype, old.attrs.get("kind", b"")
        del file["df"][name]
        new = file["df"].create_dataset(name, shape, dtype, chunks=True, compression="gzip")
        new.attrs["kind"] = kind
    with pytest.raises(InputError, match=r"a\.h5: 0\.0 MiB claim to hold"):
        read_pandas_h5(path)


@pytest.mark.parametrize("kind", ["external-link", "external-storage", "virtual"])
def test_h5_arrays_in_other_files_are_not_read(tmp_path, kind):
    path, secret = tmp_path / "a.h5", tmp_path / "secret"
    path.write_bytes(h5())
    secret.write_bytes(h5() if kind != "external-storage" else bytes(96))
    with h5py.File(path, "a") as file:
        del file["df/block0_values"]
        if kind == "external-link":
            file["df/block0_values"] = h5py.ExternalLink(str(secret), "df/block0_values")
        elif kind == "external-storage":
            file["df"].create_dataset("block0_values", (4, 3), "f8", external=[(str(secret), 0, 96)])
        else:
            layout = h5py.VirtualLayout((4, 3), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "df/block0_values", (4, 3))
            file["df"].create_virtual_dataset("block0_values", layout)
    with pytest.raises(InputError, match="is no array that lies in this file"):
        read_pandas_h5(path)


def test_a_deflated_bomb_inside_a_csv_is_just_a_broken_csv(tmp_path):
    (tmp_path / "a.csv").write_bytes(zlib.compress(bytes(10**7)))
    with pytest.raises(InputError):
        open_series_csv(tmp_path / "a.csv")
