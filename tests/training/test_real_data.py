"""Every data set of measurements, from its files to its table, and through every backbone."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import nn

from stlora_kernels.backbones import backbone_names
from stlora_kernels.data import ForecastData, load_dataset
from stlora_kernels.training.config import SyntheticConfig
from stlora_kernels.training.experiment import evaluate_run, train
from stlora_kernels.training.loss import forecast_loss
from stlora_kernels.training.model import build_model


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


@lru_cache(maxsize=1)
def measured(dataset, folder):
    """Read once for all the models that follow each other."""
    return ForecastData(load_dataset(dataset, folder))


@pytest.mark.parametrize("stlora", [False, True], ids=["plain", "stlora"])
@pytest.mark.parametrize("backbone", backbone_names())
@pytest.mark.parametrize("dataset", ["PEMS08", "METR-LA", "PEMS-BAY", "SZ-TAXI"])
def test_every_backbone_learns_from_measurements(dataset, backbone, stlora, tiny, real_data):
    """A window of the beginning and one of the end reach all that is trained, with the published sizes."""
    torch.manual_seed(0)
    data = measured(dataset, real_data)
    model = build_model(replace(tiny, dataset=dataset, backbone=backbone, stlora=stlora), data, torch.device("cpu"))
    for p in model.parameters():
        if not p.any():  # the adapter's factor that starts from 0 holds back the other's gradient until it has moved
            nn.init.normal_(p, std=0.01)
    batch = data.train.gather(torch.tensor([0, len(data.train) - 1]))
    prediction, gate = model(batch.x, return_gate=True) if stlora else (model(batch.x), None)
    assert prediction.shape == batch.y.shape == (2, 12, data.num_nodes, 1)
    loss = forecast_loss(data.scaler.inverse_transform(prediction), batch.y, data.null_value, gate, 0.1)
    assert loss.isfinite()
    loss.backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
        assert p.grad is None or (p.grad.isfinite().all() and p.grad.any()), name
