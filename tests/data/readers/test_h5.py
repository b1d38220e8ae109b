"""The pandas .h5 files of METR-LA and PEMS-BAY, written here as pandas (through PyTables) lays them out."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from stlora_kernels.data.readers import read_pandas_h5
from stlora_kernels.errors import InputError, MissingFileError

VALUES = np.arange(12.0).reshape(4, 3)
TIMES = np.datetime64("2017-03-12T01:50", "s") + np.array([0, 300, 600, 4200]) * np.timedelta64(1, "s")


def write(path: Path, *, key="df", ids=(400001, 400017, 400030), times=TIMES, kind="datetime64", blocks=None, **attrs):
    """A frame in pandas' fixed format; ``blocks`` is a list of (ids, values)."""
    unit = kind[11:-1] if "[" in kind else "ns"
    with h5py.File(path, "a") as file:
        frame = file.create_group(key)
        frame["axis0"] = np.array(ids)
        frame["axis1"] = times.astype(f"datetime64[{unit}]").astype(np.int64)
        frame["axis1"].attrs["kind"] = np.bytes_(kind)
        for name, value in attrs.items():
            frame["axis1"].attrs[name] = value
        for i, (block_ids, values) in enumerate(blocks or [(ids, VALUES)]):
            frame[f"block{i}_items"] = np.array(block_ids)
            frame[f"block{i}_values"] = values
    return path


@pytest.mark.parametrize("key", ["df", "speed"])
@pytest.mark.parametrize("kind", ["datetime64", "datetime64[ns]", "datetime64[us]", "datetime64[s]"])
@pytest.mark.parametrize("ids", [(400001, 400017, 400030), (b"773869", b"767541", b"x")], ids=["numbers", "text"])
def test_a_frame_is_read_with_its_own_times(tmp_path, key, kind, ids):
    values, times, read_ids = read_pandas_h5(write(tmp_path / "a.h5", key=key, kind=kind, ids=ids))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[:, :, 0], VALUES)
    assert times.dtype == "datetime64[s]"
    np.testing.assert_array_equal(times, TIMES)  # the gap stays where it is
    assert read_ids == tuple(sensor.decode() if isinstance(sensor, bytes) else str(sensor) for sensor in ids)


def test_columns_of_several_number_types_find_their_place(tmp_path):
    blocks = [((2, 9), VALUES[:, :2]), ((5,), VALUES[:, 2:].astype(np.int32))]
    values, _, ids = read_pandas_h5(write(tmp_path / "a.h5", ids=(9, 5, 2), blocks=blocks))
    assert ids == ("9", "5", "2")
    np.testing.assert_array_equal(values[:, :, 0], VALUES[:, [1, 2, 0]])


def test_pickled_attributes_are_never_opened(tmp_path):
    # pandas.read_hdf would unpickle this attribute and run the command.
    marker = tmp_path / "marker"
    hostile = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    read_pandas_h5(write(tmp_path / "a.h5", freq=np.void(hostile), name=np.void(hostile)))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"kind": "integer"}, "rows are of kind 'integer', expected dates", id="rows-are-numbers"),
        pytest.param({"tz": np.bytes_(b"US/Pacific")}, "without a time zone", id="time-zone"),
        pytest.param({"ids": (0.5, 1.5, 2.5)}, "sensor ids are of type float64", id="ids-are-fractions"),
        pytest.param({"blocks": [((1, 2, 3), VALUES[:2])]}, "[2, 3], expected numbers [4, 3]", id="too-few-rows"),
        pytest.param({"blocks": [((1, 2, 3), VALUES.astype("S"))]}, "expected numbers [4, 3]", id="text"),
        pytest.param(
            {"blocks": [((7, 8, 9), VALUES)]},
            "block0 holds values of 7, 8, 9, of which not all are columns",
            id="columns-of-others",
        ),
    ],
)
def test_other_frames_are_refused(tmp_path, options, message):
    path = write(tmp_path / "a.h5", **options)
    with pytest.raises(InputError) as error:
        read_pandas_h5(path)
    assert message in str(error.value)
    assert "a.h5" in str(error.value)
    assert "\n" not in str(error.value)


def test_pickled_labels_are_refused(tmp_path):
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["df/axis0"]
        labels = file["df"].create_dataset("axis0", (1,), dtype=h5py.vlen_dtype(np.uint8))
        labels[0] = np.frombuffer(b"cos\nsystem\n.", np.uint8)
    with pytest.raises(InputError, match="no pickled objects"):
        read_pandas_h5(path)


def test_fractions_of_a_second_are_refused(tmp_path):
    times = np.array(["2017-01-01T00:00:00.000", "2017-01-01T00:00:01.900"] * 2, "datetime64[ms]")[: len(TIMES)]
    with pytest.raises(InputError, match=r"a.h5: 2017-01-01T00:00:01.900.* is between two seconds"):
        read_pandas_h5(write(tmp_path / "a.h5", times=times, kind="datetime64[ms]"))


def test_several_frames_or_none_are_refused(tmp_path):
    path = write(write(tmp_path / "a.h5"), key="other")
    with pytest.raises(InputError, match="holds 2 pandas frames in fixed format, expected one"):
        read_pandas_h5(path)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["data"] = VALUES
    with pytest.raises(InputError, match="holds 0 pandas frames"):
        read_pandas_h5(tmp_path / "b.h5")


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.9], ids=["empty", "100-bytes", "half", "nearly-all"])
def test_a_truncated_file_is_an_input_error(tmp_path, keep):
    path = write(tmp_path / "a.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match=r"a\.h5 cannot be read as a pandas \.h5 file") as error:
        read_pandas_h5(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_with_its_path(tmp_path):
    with pytest.raises(MissingFileError, match=str(tmp_path / "a.h5")):
        read_pandas_h5(tmp_path / "a.h5")
