"""Checkpoints are whole or the previous one; nothing in them is executed."""

import json
import pickle

import pytest
import torch

from stlora_kernels.errors import InputError, MissingFileError
from stlora_kernels.training.checkpoint import load_checkpoint, replacing, save_checkpoint

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(7)}
ABOUT = {
    "config": {"backbone": "lstm", "stlora": False, "dataset": "äö"},
    "epoch": 3,
    "nodes": 5,
    "scaler": {"mean": 54.40592829587626},
}


def test_round_trip_is_exact(tmp_path):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, TENSORS, ABOUT)
    for where in (path, tmp_path):
        tensors, about = load_checkpoint(where)
        assert about == ABOUT
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert json.loads((tmp_path / "best.json").read_text()) == ABOUT
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.json", "best.safetensors"]


def test_tied_and_strided_tensors_are_kept(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    save_checkpoint(tmp_path / "best.safetensors", {"a": whole, "b": whole, "c": whole.T, "d": whole[:, 1:3]}, ABOUT)
    tensors, _ = load_checkpoint(tmp_path)
    assert torch.equal(tensors["b"], whole)
    assert torch.equal(tensors["c"], whole.T)
    assert torch.equal(tensors["d"], whole[:, 1:3])


def test_a_write_that_fails_leaves_the_previous_file_and_no_other(tmp_path):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, TENSORS, ABOUT)

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert load_checkpoint(path)[1] == ABOUT
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.json", "best.safetensors"]


def test_text_and_tensors_cannot_belong_to_different_epochs(tmp_path):
    # The JSON beside the tensors is for readers; what counts is in the same file as the tensors.
    save_checkpoint(tmp_path / "best.safetensors", TENSORS, ABOUT)
    (tmp_path / "best.json").write_text('{"epoch": 99}')
    assert load_checkpoint(tmp_path)[1]["epoch"] == 3


def test_missing_checkpoint_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(MissingFileError, match=r"best\.safetensors"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"half", pickle.dumps({"weight": 1})], ids=["empty", "cut", "pickle"])
def test_what_is_no_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "best.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"best\.safetensors is not a whole checkpoint"):
        load_checkpoint(path)


def test_a_cut_checkpoint_is_refused(tmp_path):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, TENSORS, ABOUT)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="is not a whole checkpoint"):
        load_checkpoint(path)


def without(key):
    return {name: value for name, value in ABOUT.items() if name != key}


@pytest.mark.parametrize(
    ("about", "words"),
    [
        pytest.param({}, "about the checkpoint has no 'config'", id="empty"),
        pytest.param([], "about the checkpoint is list, expected a mapping", id="list"),
        pytest.param({"config": {}}, "about the checkpoint has no 'epoch'", id="empty-config-alone"),
        pytest.param(ABOUT | {"config": {}}, "config of the checkpoint has no 'backbone'", id="empty-config"),
        pytest.param(ABOUT | {"config": []}, "'config' of type list, expected dict", id="config-is-a-list"),
        *(pytest.param(without(key), f"has no '{key}'", id=f"without-{key}") for key in ABOUT),
    ],
)
def test_a_checkpoint_that_lacks_what_is_read_back_is_refused(about, words, tmp_path):
    save_checkpoint(tmp_path / "best.safetensors", TENSORS, about)
    with pytest.raises(InputError, match=words) as error:
        load_checkpoint(tmp_path)
    assert "best.safetensors" in str(error.value)


def test_tensors_of_another_program_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "best.safetensors"
    save_file(TENSORS, path)
    with pytest.raises(InputError, match="is not a whole checkpoint of stlora_kernels"):
        load_checkpoint(path)
