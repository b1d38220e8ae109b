"""The .npz files of PEMS03, 04, 07 and 08."""

import numpy as np
import pytest

from stlora_kernels.data.readers import read_npz
from stlora_kernels.errors import InputError, MissingFileError


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("shape", [(6, 2, 3), (6, 2, 1), (6, 2)], ids=str)
def test_data_becomes_float32_with_channels(tmp_path, shape, dtype):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.savez(tmp_path / "a.npz", data=values)
    read = read_npz(tmp_path / "a.npz")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values if len(shape) == 3 else values[:, :, None])


def test_what_float32_cannot_hold_becomes_infinite_and_not_a_warning(tmp_path):
    np.savez(tmp_path / "a.npz", data=np.full((2, 2), 1e300))
    assert np.isinf(read_npz(tmp_path / "a.npz")).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"speed": np.ones((2, 2))}, "has no array 'data'", id="other-key"),
        pytest.param({"data": np.ones(5)}, "float64 [5], expected numbers [steps", id="one-dimension"),
        pytest.param({"data": np.array([["a", "b"]])}, "expected numbers", id="text"),
        pytest.param({"data": np.array([[{}, []]], dtype=object)}, "cannot be read as an .npz file", id="pickled"),
    ],
)
def test_other_arrays_are_refused(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(InputError) as error:
        read_npz(tmp_path / "a.npz")
    assert message in str(error.value)
    assert "a.npz" in str(error.value)


@pytest.mark.parametrize("keep", [0, 1, 30, 0.5, 0.99], ids=["empty", "1-byte", "30-bytes", "half", "nearly-all"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_a_truncated_file_is_an_input_error(tmp_path, save, keep):
    path = tmp_path / "a.npz"
    save(path, data=np.random.default_rng(0).random((50, 4, 1)))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match=r"a\.npz cannot be read as an \.npz file") as error:
        read_npz(path)
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_an_input_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, data=np.random.default_rng(0).random((50, 4, 1)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_npz(path)


def test_an_npy_is_not_an_npz(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    with pytest.raises(InputError, match=r"has no array 'data'|cannot be read"):
        read_npz(tmp_path / "a.npy")


def test_a_missing_file_is_named_with_its_path(tmp_path):
    with pytest.raises(MissingFileError, match=str(tmp_path / "a.npz")):
        read_npz(tmp_path / "a.npz")
