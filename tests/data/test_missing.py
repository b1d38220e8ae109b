"""Filling a window's inputs, and what it may see."""

import numpy as np
import pytest
import torch

from stlora_kernels.data import ForecastData
from stlora_kernels.data.missing import fill_missing, valid_mask
from stlora_kernels.errors import InputError

NAN = float("nan")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        pytest.param("none", [NAN, 2, NAN, NAN, 8, 0], id="none"),
        pytest.param("last", [NAN, 2, 2, 2, 8, 8], id="last"),
        pytest.param("linear", [2, 2, 4, 6, 8, 8], id="linear"),
    ],
)
def test_gaps_are_filled_from_the_same_window(how, expected):
    values = torch.tensor([NAN, 2, NAN, NAN, 8, 0])
    windows = torch.stack([values, torch.full((6,), 5.0), torch.full((6,), NAN)], dim=1)[None]  # [1, 6, 3]
    filled = fill_missing(windows, valid_mask(windows, 0.0), how)
    np.testing.assert_allclose(filled[0, :, 0], expected)
    assert (filled[0, :, 1] == 5).all()
    assert filled[0, :, 2].isnan().all()


@pytest.mark.parametrize("seed", range(5))
def test_linear_is_numpys_interpolation(seed):
    rng = np.random.default_rng(seed)
    values = rng.uniform(1, 9, (2, 12, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.5] = np.nan
    values[:, 3] = 4  # something to go by
    filled = fill_missing(torch.from_numpy(values), torch.from_numpy(~np.isnan(values)), "linear").numpy()
    for batch, node in np.ndindex(2, 3):
        known = np.flatnonzero(~np.isnan(values[batch, :, node]))
        line = np.interp(np.arange(12), known, values[batch, known, node])
        np.testing.assert_allclose(filled[batch, :, node], line, rtol=1e-5)


def with_gaps() -> np.ndarray:
    rng = np.random.default_rng(2)
    values = rng.uniform(1, 100, (90, 3, 1)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[rng.random(values.shape) < 0.2] = 0
    return values


@pytest.mark.parametrize("fill", ["last", "linear"])
def test_inputs_are_filled_and_targets_are_not(make_data, fill):
    source = make_data(90, values=with_gaps())
    plain, filled = ForecastData(source), ForecastData(source, fill=fill)
    everything = torch.arange(len(plain.train))
    before, after = plain.train.gather(everything), filled.train.gather(everything)
    assert torch.equal(before.y.nan_to_num(-1), after.y.nan_to_num(-1))
    assert after.y.isnan().any()
    assert (after.y == 0).any()
    assert not torch.equal(before.x, after.x)
    assert plain.scaler == filled.scaler
    measured = valid_mask(torch.from_numpy(source.values[:12, :, 0]), 0.0)
    assert torch.equal(before.x[0, ..., 0][measured], after.x[0, ..., 0][measured])
    zero = (0 - filled.scaler.mean) / filled.scaler.std
    assert not torch.isclose(after.x[..., 0], torch.tensor(zero)).any()


@pytest.mark.parametrize("start", [0, 20, 41])
@pytest.mark.parametrize("fill", ["last", "linear"])
def test_filling_sees_nothing_outside_the_input_window(make_data, fill, start):
    values = with_gaps()
    values[[start, start + 11], :2] = np.nan  # measured next to the window, not at its ends
    values[[start + 1, start + 10, start + 12], :2] = 50
    changed = values.copy()
    changed[:start] = 77
    changed[start + 12 :] = 77
    index = torch.tensor([start])
    tasks = [ForecastData(make_data(90, values=v), fill=fill, split=(0.8, 0.1, 0.1)) for v in (values, changed)]
    raw = [task.scaler.inverse_transform(task.train.gather(index).x[..., 0]) for task in tasks]
    known = raw[0] != tasks[0].scaler.inverse_transform(torch.zeros(()))  # a missing one is either's training mean
    assert known.sum() > 20
    assert torch.allclose(raw[0][known], raw[1][known], rtol=1e-4)


def test_last_is_causal(make_data):
    values = with_gaps()
    changed = values.copy()
    changed[26:] = 55
    x = [
        ForecastData(make_data(90, values=v), fill="last", split=(0.2, 0.4, 0.4)).val.gather(torch.tensor([7])).x
        for v in (values, changed)
    ]  # the window is steps 20 .. 31; training inputs end at step 24
    assert torch.equal(x[0][:, :6, :, 0], x[1][:, :6, :, 0])
    assert not torch.equal(x[0], x[1])


def test_only_the_target_channel_has_a_null_value(make_data):
    values = np.random.default_rng(0).uniform(1, 9, (90, 2, 2)).astype(np.float32)
    values[5:8, :, :] = 0
    data = ForecastData(make_data(90, nodes=2, values=values), fill="last")
    x = data.train.gather(torch.tensor([0])).x
    assert (x[0, 5:8, :, 0] == x[0, 4, :, 0]).all()
    assert (x[0, 5:8, :, 3] < x[0, 4, :, 3]).all()


def test_other_ways_to_fill_are_refused(make_data):
    with pytest.raises(InputError, match="fill is 'next', expected one of none, last, linear"):
        ForecastData(make_data(90), fill="next")
