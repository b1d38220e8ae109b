"""Windows, splits and the scaler, against windows that are built one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stlora_kernels.data import ForecastData, Scaler
from stlora_kernels.data.windows import _one_ahead
from stlora_kernels.errors import InputError

SETS = [  # steps, split, windows of training, validation and test as published
    pytest.param(34272, (0.7, 0.1, 0.2), (23974, 3425, 6850), id="METR-LA"),
    pytest.param(52116, (0.7, 0.1, 0.2), (36465, 5209, 10419), id="PEMS-BAY"),
    pytest.param(26208, (0.6, 0.2, 0.2), (15711, 5237, 5237), id="PEMS03"),
    pytest.param(16992, (0.6, 0.2, 0.2), (10181, 3394, 3394), id="PEMS04"),
    pytest.param(28224, (0.6, 0.2, 0.2), (16921, 5640, 5640), id="PEMS07"),
    pytest.param(17856, (0.6, 0.2, 0.2), (10700, 3567, 3566), id="PEMS08"),
]


def with_missing(shape: tuple[int, ...], share: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 100, shape).astype(np.float32)
    values[rng.random(shape) < share] = np.nan
    values[rng.random(shape) < share] = 0
    return values


def training_inputs(data: ForecastData) -> np.ndarray:
    """Every training window's inputs, built in full: what the published scalers are computed from."""
    return np.stack([data.data.values[i : i + data.window, :, 0] for i in range(data.train.start, data.train.stop)])


@pytest.mark.parametrize(("steps", "split", "counts"), SETS)
def test_window_counts_are_the_published_ones(make_data, steps, split, counts):
    data = ForecastData(make_data(steps, nodes=1, split=split))
    assert (len(data.train), len(data.val), len(data.test)) == counts
    assert data.train.start == 0
    assert (data.train.stop, data.val.stop, data.test.stop) == (data.val.start, data.test.start, steps - 23)


@pytest.mark.parametrize(("steps", "split", "counts"), SETS)
def test_split_by_steps_keeps_windows_inside_their_part(make_data, steps, split, counts):
    data = ForecastData(make_data(steps, nodes=1, split=split), split_by="steps")
    parts = [data.train, data.val, data.test]
    ends = [round(steps * split[0]), round(steps * split[0]) + round(steps * split[1]), steps]
    assert [part.start for part in parts] == [0, *ends[:2]]
    assert [part.stop + 23 for part in parts] == ends


@pytest.mark.parametrize(("window", "horizon"), [(12, 12), (3, 1), (1, 5)], ids=["T12-H12", "T3-H1", "T1-H5"])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_window_is_the_steps_before_and_after(make_data, window, horizon, part):
    source = make_data(values=with_missing((90, 3, 2)), steps=90)
    data = ForecastData(source, window=window, horizon=horizon)
    windows = getattr(data, part)
    indices = torch.tensor([len(windows) - 1, 0, len(windows) // 2, 0])
    batch = windows.gather(indices)
    calendar = source.calendar()
    assert batch.x.dtype == batch.y.dtype == torch.float32
    assert batch.time.dtype == torch.int64
    assert batch.x.shape == (4, window, 3, data.in_features)
    assert batch.y.shape == (4, horizon, 3, data.out_features)
    for row, index in enumerate(indices.tolist()):
        past = slice(windows.start + index, windows.start + index + window)
        future = slice(past.stop, past.stop + horizon)
        scaled = np.nan_to_num((source.values[past, :, 0] - data.scaler.mean) / data.scaler.std)
        np.testing.assert_allclose(batch.x[row, ..., 0], scaled, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(batch.y[row, ..., 0], source.values[future, :, 0])  # NaN where NaN
        np.testing.assert_array_equal(batch.time[row], calendar[past])
        for node in range(3):
            np.testing.assert_allclose(batch.x[row, :, node, 1], calendar[past, 0] / 288, rtol=1e-6)
            np.testing.assert_allclose(batch.x[row, :, node, 2], calendar[past, 1] / 7, rtol=1e-6)


def test_targets_stay_in_real_units_with_their_zeros(make_data):
    source = make_data(values=with_missing((90, 3, 1)), steps=90)
    data = ForecastData(source)
    y = data.train.gather(torch.arange(len(data.train))).y
    assert (y == 0).any()
    assert y.isnan().any()


def test_missing_inputs_are_the_training_mean(make_data):
    source = make_data(values=with_missing((90, 3, 1)), steps=90)
    data = ForecastData(source)
    x = data.train.gather(torch.tensor([4])).x[0, ..., 0]
    missing = torch.from_numpy(np.isnan(source.values[4:16, :, 0]))
    assert missing.any()
    assert (x[missing] == 0).all()
    assert x.isfinite().all()


@pytest.mark.parametrize("index", [-1, 10**6], ids=["negative", "beyond"])
def test_windows_of_another_part_cannot_be_reached(make_data, index):
    data = ForecastData(make_data(90))
    with pytest.raises(IndexError, match=f"expected 0 .. {len(data.train) - 1}"):
        data.train.gather(torch.tensor([0, index]))


def test_an_empty_batch_has_the_right_shape(make_data):
    data = ForecastData(make_data(90))
    assert data.train.gather(torch.empty(0, dtype=torch.int64)).x.shape == (0, 12, 3, 3)


@pytest.mark.parametrize("batch_size", [1, 7, 10**6], ids=["one", "with-remainder", "all"])
def test_batches_hold_every_window_once_and_in_order(make_data, batch_size):
    data = ForecastData(make_data(90))
    batches = list(data.train.batches(batch_size))
    everything = data.train.gather(torch.arange(len(data.train)))
    assert len(batches) == data.train.num_batches(batch_size)
    assert torch.equal(torch.cat([batch.x for batch in batches]), everything.x)
    assert torch.equal(torch.cat([batch.y for batch in batches]), everything.y)
    assert torch.equal(torch.cat([batch.time for batch in batches]), everything.time)


def test_shuffled_batches_hold_every_window_once_and_follow_the_generator(make_data):
    data = ForecastData(make_data(90))

    def epoch(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([batch.y for batch in data.train.batches(8, shuffle=True, generator=generator)])

    in_order = data.train.gather(torch.arange(len(data.train))).y
    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))
    assert not torch.equal(epoch(1), in_order)
    assert torch.equal(epoch(1).sort(dim=0).values, in_order.sort(dim=0).values)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_has_to_be_positive(make_data, batch_size):
    with pytest.raises(InputError, match=f"batch_size is {batch_size}, expected at least 1"):
        ForecastData(make_data(90)).train.batches(batch_size)


def test_series_is_not_copied(make_data):
    source = make_data(90)
    values = ForecastData(source).train.series.values
    assert values.data_ptr() == source.values.ctypes.data


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        pytest.param(1900, {}, id="more-steps-than-are-summed-at-a-time"),
        pytest.param(1900, {"split_by": "steps"}, id="split-by-steps"),
        pytest.param(60, {"window": 1, "horizon": 1}, id="T1-H1"),
        pytest.param(160, {"window": 30, "split": (1, 5, 5)}, id="window-longer-than-their-number"),
    ],
)
def test_scaler_is_that_of_the_training_windows_inputs(make_data, steps, options):
    data = ForecastData(make_data(steps, values=with_missing((steps, 3, 1))), **options)
    inputs = training_inputs(data).astype(np.float64)
    assert data.scaler.mean == pytest.approx(np.nanmean(inputs), rel=1e-12)
    assert data.scaler.std == pytest.approx(np.nanstd(inputs), rel=1e-12)


def test_scaler_counts_zeros(make_data):
    values = np.zeros((60, 1, 1), dtype=np.float32)
    values[::2] = 10
    scaler = ForecastData(make_data(60, nodes=1, values=values)).scaler
    assert scaler.mean == pytest.approx(5)
    assert scaler.std == pytest.approx(5)


@pytest.mark.parametrize("split_by", ["windows", "steps"])
def test_scaler_does_not_see_beyond_the_training_inputs(make_data, split_by):
    values = with_missing((200, 3, 1))
    before = ForecastData(make_data(200, values=values), split_by=split_by)
    changed = values.copy()
    changed[before.train.stop + 11 :] = 1e6  # the first step that is no training input
    after = ForecastData(make_data(200, values=changed), split_by=split_by)
    assert after.scaler == before.scaler
    changed[before.train.stop + 10] = 1e6  # the last one that is
    assert ForecastData(make_data(200, values=changed), split_by=split_by).scaler != before.scaler


def test_scaler_does_not_see_other_channels(make_data):
    values = with_missing((90, 3, 2))
    changed = values.copy()
    changed[..., 1] *= 100
    assert ForecastData(make_data(90, values=changed)).scaler == ForecastData(make_data(90, values=values)).scaler


@pytest.mark.parametrize("inputs", ["target", "all"])
def test_further_channels_are_inputs_scaled_each_by_itself(make_data, inputs):
    source = make_data(values=with_missing((90, 3, 3)) * np.float32([1, 10, 0.1]), steps=90)
    data = ForecastData(source, inputs=inputs)
    batch = data.train.gather(torch.tensor([3]))
    assert data.in_features == batch.x.shape[-1] == (5 if inputs == "all" else 3)
    assert batch.y.shape == (1, 12, 3, 1)
    training = source.values[: data.train.stop + 11]
    for feature, channel in [(0, 0), (3, 1), (4, 2)][: data.in_features - 2]:
        given = training[3:15, :, channel]
        x = batch.x[0, ..., feature].numpy()
        assert (x[np.isnan(given)] == 0).all()
        alone = ForecastData(replace(source, values=source.values[..., channel : channel + 1])).scaler
        known = ~np.isnan(given)
        np.testing.assert_allclose(x[known], ((given - alone.mean) / alone.std)[known], rtol=1e-4, atol=1e-6)


def test_the_data_say_whether_their_channels_are_inputs(make_data):
    values = with_missing((90, 3, 2))
    assert ForecastData(make_data(90, values=values)).in_features == 4
    assert ForecastData(make_data(90, values=values, inputs="target")).in_features == 3


def test_a_further_channel_without_information_is_named(make_data):
    values = with_missing((90, 3, 2))
    values[..., 1] = 4
    with pytest.raises(InputError, match=r"small, channel 1: every value of the training inputs is 4\.0"):
        ForecastData(make_data(90, values=values))


@pytest.mark.parametrize("split_by", ["windows", "steps"])
def test_scalers_of_further_channels_see_no_later_value_either(make_data, split_by):
    values = with_missing((200, 3, 2))
    before = ForecastData(make_data(200, values=values), split_by=split_by).train
    changed = values.copy()
    changed[before.stop + 11 :] = 1e6
    after = ForecastData(make_data(200, values=changed), split_by=split_by).train
    assert after.series.scalers == before.series.scalers
    x, y = (part.gather(torch.arange(len(part))).x for part in (before, after))
    assert torch.equal(x, y)


def test_batches_made_one_ahead_are_the_same(make_data):
    data = ForecastData(make_data(90))
    ahead = list(_one_ahead(data.train.batches(7)))
    for batch, same in zip(data.train.batches(7), ahead, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, same, strict=True))


def test_an_error_ahead_of_its_batch_is_not_lost(make_data):
    def broken():
        yield from ForecastData(make_data(90)).train.batches(7)
        raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        list(_one_ahead(broken()))


def test_placing_on_the_cpu_changes_nothing(make_data):
    data = ForecastData(make_data(90))
    series = data.train.series
    data.place(torch.device("cpu"))
    assert data.train.series is series


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("share", [0.25, 0.0], ids=["on-the-device", "pinned"])
def test_batches_for_a_gpu_are_the_same(make_data, monkeypatch, share):
    monkeypatch.setattr("stlora_kernels.data.windows.DEVICE_SHARE", share)
    source = make_data(values=with_missing((90, 3, 2)), steps=90)
    here, there = ForecastData(source, fill="linear"), ForecastData(source, fill="linear")
    there.place(torch.device("cuda"))
    for a, b in zip(here.train.batches(8), there.train.batches(8), strict=True):
        assert (b.x.is_cuda, b.x.is_pinned()) == ((True, False) if share else (False, True))
        for one, other in zip(a, b, strict=True):
            torch.testing.assert_close(one, other.cpu(), rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("kind", [torch.tensor, np.array], ids=["tensor", "array"])
def test_inverse_transform_undoes_transform(kind):
    scaler = Scaler(mean=54.4, std=19.5)
    values = kind([0.0, 54.4, 70.0])
    np.testing.assert_allclose(scaler.inverse_transform(scaler.transform(values)), values, rtol=1e-6, atol=1e-5)
    assert scaler.transform(values)[1] == pytest.approx(0, abs=1e-6)


def test_scaler_is_restored_from_its_state():
    scaler = Scaler(mean=54.40592829587626, std=19.493739270573098)
    assert Scaler(**scaler.state_dict()) == scaler


@pytest.mark.parametrize(
    ("given", "expected"), [("data", 0.0), (None, None), (-1.0, -1.0)], ids=["as-the-data-says", "only-nan", "own"]
)
def test_null_value_can_be_chosen(make_data, given, expected):
    assert ForecastData(make_data(90), null_value=given).null_value == expected


def test_shares_may_be_given_in_any_scale(make_data):
    by_ratio, by_share = (ForecastData(make_data(300), split=split) for split in ((7, 1, 2), (0.7, 0.1, 0.2)))
    assert (by_ratio.val.start, by_ratio.test.start) == (by_share.val.start, by_share.test.start)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"window": 0}, "window is 0, horizon is 12", id="no-window"),
        pytest.param({"horizon": -1}, "window is 12, horizon is -1", id="negative-horizon"),
        pytest.param({"window": 50}, "60 steps are too few for a window of 50 + 12 steps", id="too-few-for-one"),
        pytest.param({"split_by": "steps"}, "60 steps are too few", id="too-few-for-one-in-each-part"),
        pytest.param({"split": (0.98, 0.01, 0.01)}, "60 steps are too few", id="a-part-of-no-window"),
        pytest.param({"split": (0.8, 0.2, 0)}, "three positive shares", id="no-test"),
        pytest.param({"split": (0.8, 0.2)}, "three positive shares", id="two-shares"),
        pytest.param({"split": (float("nan"), 1, 1)}, "three positive shares", id="nan-share"),
        pytest.param({"split_by": "days"}, "split_by is 'days'", id="unknown-convention"),
    ],
)
def test_tasks_that_cannot_be_are_refused_in_one_line(make_data, options, message):
    with pytest.raises(InputError) as error:
        ForecastData(make_data(60), **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("training", "message"),
    [pytest.param(np.nan, "is missing", id="all-missing"), pytest.param(5.0, "nothing to learn", id="constant")],
)
def test_training_inputs_without_information_are_refused(make_data, training, message):
    values = with_missing((60, 3, 1))
    values[:40] = training
    with pytest.raises(InputError, match=message):
        ForecastData(make_data(60, values=values))


def with_gap(steps: int, after: int) -> np.ndarray:
    """Times of 5 minutes, with one week missing after so many steps."""
    step = np.arange(steps) + np.where(np.arange(steps) < after, 0, 7 * 288)
    return np.datetime64("2024-01-01T00:00:00", "s") + step * np.timedelta64(300, "s")


@pytest.mark.parametrize(
    ("after", "count"), [(30, 4), (1, 1), (59, 1)], ids=["in-the-middle", "after-the-first", "before-the-last"]
)
def test_windows_across_a_gap_in_time_are_kept_and_counted(make_data, caplog, after, count):
    data = ForecastData(make_data(times=with_gap(60, after)), window=3, horizon=2)
    assert sum(len(part) for part in (data.train, data.val, data.test)) == 56
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"small: {count} of 56 windows cross 1 gap(s) in time" in caplog.text
    assert "rows of NaN" in caplog.text


def test_a_gap_between_parts_and_no_gap_at_all_are_not_warned_of(make_data, caplog):
    ForecastData(make_data(times=with_gap(60, 36)), window=3, horizon=2, split_by="steps")
    ForecastData(make_data(), window=3, horizon=2)
    assert not caplog.text
