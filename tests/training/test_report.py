"""The table a reader sees."""

import math
from dataclasses import replace

import numpy as np
import pytest

from stlora_kernels.training.evaluation import evaluate_ha
from stlora_kernels.training.experiment import load_data
from stlora_kernels.training.report import Report


def table(report, capsys):
    report.print()
    return capsys.readouterr().out


def ha_report(config):
    data = load_data(config)
    return Report(data, evaluate_ha(data, data.test), {"total": 0})


def test_table_names_data_units_horizons_both_averages_and_every_row(tiny, capsys):
    report = ha_report(tiny)
    shown = table(report, capsys)
    words = [
        "synthetic data, not measured",
        "flow in veh/5min",
        "15 min",
        "30 min",
        "60 min",
        "mean of",
        "steps",
        "pooled",
    ]
    words += ["HA (weekly slot)", "HA (window mean)", "HA (last value)", "MAE", "RMSE", "MAPE %"]
    for word in words:
        assert word in shown
    scores = report.scores["HA (last value)"]
    for value in (scores.steps[2].mae, scores.steps[5].mae, scores.steps[11].mae, scores.pooled.rmse):
        assert f"{value:.2f}" in shown


@pytest.mark.parametrize(
    ("horizon", "labels"),
    [(1, ["5 min"]), (2, ["10 min"]), (3, ["15 min"]), (8, ["15 min", "30 min"]), (24, ["15 min", "30 min", "60 min"])],
)
def test_a_short_horizon_shows_the_steps_that_exist(horizon, labels, tiny):
    assert list(ha_report(replace(tiny, horizon=horizon)).columns()) == labels


def test_labels_follow_the_length_of_a_step(tiny):
    report = ha_report(tiny)
    data = report.data.data
    times = data.times[0] + np.arange(data.num_steps) * np.timedelta64(900, "s")
    report.data.data = replace(data, steps_per_day=96, times=times)
    assert list(report.columns()) == ["45 min", "90 min", "180 min"]


def test_a_step_without_targets_is_a_dash(tiny, capsys):
    data = load_data(tiny)
    data.test.series.values[:] = math.nan
    shown = table(Report(data, evaluate_ha(data, data.test), {"total": 0}), capsys)
    rows = [line for line in shown.splitlines() if "MAE" in line]
    assert rows
    assert all(line.count(" - ") == 5 for line in rows)
    assert "nan" not in shown


def test_measured_data_are_not_called_synthetic(tiny, capsys):
    report = ha_report(tiny)
    report.data.data = replace(report.data.data, synthetic=False, name="PEMS08")
    shown = table(report, capsys)
    assert "PEMS08: test errors" in shown
    assert "synthetic" not in shown


def test_overhead_is_printed(tiny, capsys):
    data = load_data(tiny)
    counts = {"total": 150, "backbone": 100, "adapter": 50, "overhead_percent": 50.0}
    shown = table(Report(data, evaluate_ha(data, data.test), counts), capsys)
    assert "Parameters: 150 = backbone 100 + adapter 50 (overhead 50.0 %)" in shown
