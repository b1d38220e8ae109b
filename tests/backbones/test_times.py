"""Fractions of days and weeks lead back to their indices, or are refused."""

import pytest
import torch

from stlora_kernels.backbones import build_backbone
from stlora_kernels.backbones.times import calendar_indices, step_index
from stlora_kernels.data import ForecastData, load_dataset
from stlora_kernels.errors import InputError

BACKBONES = ("d2stgnn", "staeformer")  # those that embed times


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("steps", [288, 96, 48, 24, 7, 1440, 86400])
def test_every_step_of_a_day_is_found_again(steps, dtype):
    index = torch.arange(steps)
    assert torch.equal(step_index((index / steps).to(dtype), steps, "time"), index)


@pytest.mark.parametrize(
    ("dtype", "resolved"),
    [(torch.bfloat16, range(1, 256)), (torch.float16, (288, 1027, 1440, 2047))],
    ids=["bfloat16", "float16"],
)
def test_half_precision_finds_the_steps_that_it_can_tell_apart(dtype, resolved):
    for steps in resolved:
        index = torch.arange(steps)
        assert torch.equal(step_index((index / steps).to(dtype), steps, "time"), index)


@pytest.mark.parametrize(("dtype", "steps"), [(torch.bfloat16, 256), (torch.bfloat16, 288), (torch.float16, 2048)])
def test_half_precision_refuses_the_steps_that_it_cannot_tell_apart(dtype, steps):
    fraction = (torch.arange(steps) / steps).to(dtype)
    with pytest.raises(InputError, match=rf"x: got its time in {dtype}, which cannot tell {steps} steps apart; keep"):
        step_index(fraction, steps, "time")


def test_five_minutes_are_indeed_lost_in_bfloat16():
    fraction = (torch.arange(288) / 288).bfloat16()
    assert not torch.equal((fraction.float() * 288).round().long(), torch.arange(288))
    assert len(fraction.unique()) < 288


@pytest.mark.parametrize("name", ["PEMS08", "METR-LA", "PEMS-BAY", "SZ-TAXI", "synthetic"])
def test_the_windows_of_a_data_set_lead_back_to_its_calendar(name, request):
    folder = None if name == "synthetic" else request.getfixturevalue("real_data")
    data = ForecastData(load_dataset(name, folder))
    batch = data.train.gather(torch.arange(0, len(data.train), 12))  # every step once
    x = batch.x[:, :, :2]  # [B, T, 2, 3]
    assert len(batch.time[..., 0].unique()) == data.data.steps_per_day == (96 if name == "SZ-TAXI" else 288)
    found = torch.stack(calendar_indices(x, data.data.steps_per_day), dim=-1)  # [B, T, 2, 2]
    assert torch.equal(found, batch.time.unsqueeze(2).expand_as(found))


def model_and_windows(name, steps_per_day=288, dtype=torch.float32):
    model = build_backbone(
        name,
        **{"num_nodes": 4, "in_features": 3, "out_features": 1, "window": 12, "horizon": 2},
        **{"adjacency": torch.ones(4, 4), "steps_per_day": steps_per_day},
    )
    return model.to(dtype), torch.zeros(2, 12, 4, 3, dtype=dtype)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("value", [-0.2, 1.0, 287.0, torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("feature", "what"), [(1, "time of day"), (2, "day of the week")], ids=["time", "day"])
def test_a_time_out_of_range_is_named(name, feature, what, value):
    model, x = model_and_windows(name)
    x[1, 2, 3, feature] = value
    with pytest.raises(InputError, match=rf"x: got a {what} outside \[0, 1\), expected step / "):
        model(x)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_model_in_bfloat16_reads_quarters_of_an_hour_and_no_less(name):
    model, x = model_and_windows(name, 96, torch.bfloat16)
    x[..., 1] = 95 / 96
    assert model(x).isfinite().all()
    model, x = model_and_windows(name, 288, torch.bfloat16)
    message = r"x: got its time of day in torch.bfloat16, which cannot tell 288 steps apart; keep x in float32"
    with pytest.raises(InputError, match=message):
        model(x)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match=message):
        model.float()(x)
