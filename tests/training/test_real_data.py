"""Every data set of measurements, from its files to its table."""

from dataclasses import replace

import pytest

from stlora_kernels.training.config import SyntheticConfig
from stlora_kernels.training.experiment import evaluate_run, train


@pytest.mark.parametrize("backbone", ["lstm", "stgcn", "var", "svr"])
@pytest.mark.parametrize(
    ("dataset", "nodes", "unit", "label"),
    [
        ("PEMS08", 170, "veh/5min", "60 min"),
        ("METR-LA", 207, "mph", "60 min"),
        ("PEMS-BAY", 67, "mph", "60 min"),
        ("SZ-TAXI", 156, "km/h", "180 min"),
    ],
)
def test_measured_set_trains_and_is_scored(dataset, nodes, unit, label, backbone, tiny, real_data, capsys):
    config = replace(
        tiny,
        dataset=dataset,
        data_dir=real_data,
        synthetic=SyntheticConfig(),
        backbone=backbone,
        stlora=backbone not in ("var", "svr"),
        split=(0.96, 0.02, 0.02),
        max_batches=2,
        batch_size=16,
    )
    report = train(config)
    report.print()
    shown = capsys.readouterr().out
    assert unit in shown
    assert label in shown
    assert "synthetic" not in shown
    assert report.data.num_nodes == nodes
    assert len(report.scores) == 4
    for scores in report.scores.values():
        assert 0 < scores.pooled.mae < scores.pooled.rmse
        assert scores.pooled.targets == report.scores["HA (last value)"].pooled.targets
    assert evaluate_run(config.output).scores == report.scores
