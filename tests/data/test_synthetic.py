"""The generated set: reproducible, shaped like traffic, and a forecasting task worth learning."""

import numpy as np
import pytest
import torch

from stlora_kernels.data import ForecastData, load_dataset, synthetic
from stlora_kernels.data.windows import Batch
from stlora_kernels.errors import InputError


@pytest.fixture(scope="module")
def week():
    return synthetic(nodes=48, steps=7 * 288, seed=1)


def test_it_says_that_it_is_synthetic(week):
    assert week.synthetic
    assert week.name == "synthetic"


@pytest.mark.parametrize(("nodes", "steps"), [(1, 300), (2, 1), (17, 100), (300, 288)], ids=str)
def test_any_size_can_be_made(nodes, steps):
    data = synthetic(nodes=nodes, steps=steps)
    assert data.values.shape == (steps, nodes, 1)
    assert np.array_equal(data.adjacency, data.adjacency.T)
    assert not data.adjacency.diagonal().any()


def test_the_same_arguments_give_the_same_data(week):
    again = synthetic(nodes=48, steps=7 * 288, seed=1)
    other = synthetic(nodes=48, steps=7 * 288, seed=2)
    np.testing.assert_array_equal(again.values, week.values)
    np.testing.assert_array_equal(again.adjacency, week.adjacency)
    assert not np.array_equal(other.values, week.values, equal_nan=True)


def test_load_dataset_passes_its_options():
    data = load_dataset("Synthetic", nodes=5, steps=40, seed=3)
    np.testing.assert_array_equal(data.values, synthetic(nodes=5, steps=40, seed=3).values)


@pytest.mark.parametrize("options", [{"nodes": 0}, {"nodes": -1}, {"steps": 0}, {"seed": -1}], ids=str)
def test_sizes_have_to_be_positive(options):
    name, value = next(iter(options.items()))
    with pytest.raises(InputError, match=f"{name}={value}"):
        synthetic(**options)


def test_flow_is_counted_and_partly_missing(week):
    flow = week.values[np.isfinite(week.values)]
    assert (flow >= 0).all()
    assert (flow == np.round(flow)).all()
    assert 0.005 < np.isnan(week.values).mean() < 0.05
    assert flow.max() < 3000  # queues and surges do not run away


def test_days_are_busy_and_nights_are_not_and_weekends_differ(week):
    step_of_day, day = week.calendar().T
    flow = week.values[:, :, 0]
    noon = np.nanmean(flow[(step_of_day > 120) & (step_of_day < 216)])
    night = np.nanmean(flow[step_of_day < 48])
    assert noon > 3 * night
    assert np.nanmean(flow[day < 5]) > 1.2 * np.nanmean(flow[day >= 5])


def test_sensors_peak_at_hours_of_their_own(week):
    step_of_day, day = week.calendar().T
    profile = np.stack([np.nanmean(week.values[(step_of_day == s) & (day < 5), :, 0], axis=0) for s in range(288)])
    assert np.std(profile.argmax(axis=0)) > 12  # in steps: more than an hour apart


def linear_model_error(data: ForecastData, inputs: dict[int, list[int]]) -> float:
    """Test MAE of one ridge regression per node on the windows of ``inputs[node]`` and the time."""

    def features(batch: Batch, node: int) -> np.ndarray:
        step, day = batch.time[:, -1].numpy().T
        angles = 2 * np.pi / 288 * step[:, None] * np.arange(1, 8)
        daily = np.concatenate([np.ones((len(step), 1)), np.sin(angles), np.cos(angles)], axis=1)
        windows = [batch.x[:, :, other, 0].numpy() for other in inputs[node]]
        return np.concatenate([*windows, daily, daily * (day >= 5)[:, None]], axis=1)

    train, test = (part.gather(torch.arange(0, len(part), 3)) for part in (data.train, data.test))
    targets = data.scaler.transform(train.y[..., 0]).nan_to_num(0).numpy()
    errors = []
    for node in range(data.num_nodes):
        x = features(train, node)
        weight = np.linalg.solve(x.T @ x + 3 * np.eye(x.shape[1]), x.T @ targets[:, :, node])
        forecast = data.scaler.inverse_transform(features(test, node) @ weight)
        errors.append(np.abs(forecast - test.y[:, :, node, 0].numpy()))
    return float(np.nanmean(errors))


@pytest.fixture(scope="module")
def task() -> ForecastData:
    return ForecastData(synthetic(nodes=24, steps=21 * 288, seed=0))


def naive_errors(task: ForecastData) -> dict[str, float]:
    """Test MAE of the weekly slot's mean in training, the window's mean and its last value."""
    values, slot = task.data.values[:, :, 0], task.data.calendar() @ [1, 288]
    known, trained = np.isfinite(values[: task.train.stop + 11]), slot[: task.train.stop + 11]
    sums = np.stack([np.nansum(values[: len(trained)][trained == s], axis=0) for s in range(7 * 288)])
    counts = np.stack([known[trained == s].sum(axis=0) for s in range(7 * 288)])
    weekly = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)  # a slot never seen forecasts nothing
    batch = task.test.gather(torch.arange(len(task.test)))
    past = task.scaler.inverse_transform(batch.x[..., 0]).numpy()  # [B, T, N]
    target = batch.y[..., 0].numpy()
    steps = task.test.start + 12 + np.arange(len(task.test))[:, None] + np.arange(12)
    forecasts = {"weekly": weekly[slot[steps]], "mean": past.mean(axis=1)[:, None], "last": past[:, -1:]}
    return {name: float(np.nanmean(np.abs(forecast - target))) for name, forecast in forecasts.items()}


def test_learning_beats_every_naive_forecast_clearly(task):
    learned = linear_model_error(task, {node: [node] for node in range(24)})
    assert learned < 0.85 * min(naive_errors(task).values())


def test_neighbours_tell_more_than_strangers(task):
    neighbours = {node: [node, *np.flatnonzero(task.data.adjacency[node])] for node in range(24)}
    strangers = {node: [node, *((node + 9 + np.arange(len(neighbours[node]) - 1)) % 24)] for node in range(24)}
    alone = linear_model_error(task, {node: [node] for node in range(24)})
    assert linear_model_error(task, neighbours) < 0.97 * alone
    assert linear_model_error(task, neighbours) < 0.97 * linear_model_error(task, strangers)
