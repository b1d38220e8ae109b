"""VAR and SVR by the commands that train backbones, on the data that backbones see."""

import json
import math
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stlora_kernels.baselines import SVR, VAR, Baseline
from stlora_kernels.data import ForecastData
from stlora_kernels.errors import InputError
from stlora_kernels.evaluate import main as evaluate_main
from stlora_kernels.train import main as train_main
from stlora_kernels.training.checkpoint import load_checkpoint
from stlora_kernels.training.classical import fit_baseline
from stlora_kernels.training.cli import run
from stlora_kernels.training.evaluation import evaluate, measured_values, training_steps
from stlora_kernels.training.experiment import evaluate_run, load_data, train
from stlora_kernels.training.metrics import ScoreMeter
from stlora_kernels.training.model import build_model

CPU = torch.device("cpu")
both = pytest.mark.parametrize("name", ["var", "svr"])


@pytest.fixture
def tiny(tiny):
    return replace(tiny, stlora=False)


def options(tmp_path, name, *more):
    return ["--synthetic.nodes=5", "--synthetic.steps=320", f"--output={tmp_path / 'run'}", f"--backbone={name}", *more]


def files(folder):
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def fitted(config, data):
    model = build_model(config, data, CPU)
    fit_baseline(model, data, config, CPU)
    return model


def changed(data, change, **settings):
    """The same data with other values."""
    values = data.data.values.copy()
    change(values)
    return ForecastData(replace(data.data, values=values), **settings)


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[key], second[key]) for key in first)


@both
def test_train_and_evaluate_print_the_same_table(name, tmp_path, capsys):
    assert run(train_main, options(tmp_path, name)) == 0
    out, err = capsys.readouterr()
    trained = out.splitlines()
    assert err.splitlines()[0].startswith(f"{name} on synthetic data")
    assert err.count("\n") == 1
    assert "│ " + name.upper() in out
    assert trained[-2].startswith("Fit: 3 lags, ridge 100, " if name == "var" else "Fit: ")
    assert " s, validation MAE " in trained[-2]
    assert run(evaluate_main, [f"--run={tmp_path / 'run'}"]) == 0
    *table, checkpoint = capsys.readouterr().out.splitlines()
    assert len(table) > 15
    assert trained[: len(table)] == table
    assert trained[-2].removeprefix("Fit: ").startswith(checkpoint.split("run, ")[1])


@both
def test_run_folder_holds_configuration_checkpoint_and_metrics(name, tiny):
    config = replace(tiny, backbone=name)
    report = train(config)
    assert files(config.output) == ["best.json", "best.safetensors", "config.yaml", "metrics.json"]
    metrics = json.loads((config.output / "metrics.json").read_text())
    label = name.upper()
    assert metrics["model"] == label
    assert list(metrics["test"]) == [label, "HA (weekly slot)", "HA (window mean)", "HA (last value)"]
    assert metrics["test"][label] == report.scores[label].as_dict()
    assert metrics["test"][label]["pooled"]["targets"] == metrics["test"]["HA (last value)"]["pooled"]["targets"]
    assert metrics["seconds"] > 0
    assert metrics["fit"]
    assert metrics["validation"]["pooled"]["mae"] > 0
    assert metrics["parameters"]["total"] == {"var": 3 * 5 * 5, "svr": 12 * 13}[name]
    tensors, about = load_checkpoint(config.output)
    assert sorted(tensors) == ["mean", "std", "weight"] if name == "var" else ["bias", "mean", "std", "weight"]
    assert about["fit"] == metrics["fit"]
    assert evaluate_run(config.output).scores == report.scores


@both
def test_forecasts_beat_every_historical_average_early_on(name, tiny):
    report = train(replace(tiny, backbone=name, synthetic=replace(tiny.synthetic, nodes=16, steps=3000)))
    scores = {model: score.steps[2].mae for model, score in report.scores.items()}
    assert min(scores, key=scores.get) == name.upper()


@both
def test_scores_are_those_of_a_loop_over_windows(name, tiny):
    config = replace(tiny, backbone=name)
    data = load_data(config)
    model = fitted(config, data)
    values, meter = measured_values(data), ScoreMeter(data.horizon, data.null_value)
    for start in range(data.test.start, data.test.stop):
        ahead = values[start + data.window : start + data.window + data.horizon]
        meter.update(model(values[None, start : start + data.window]).unsqueeze(-1), ahead[None, :, :, None])
    found, expected = evaluate(model, data, data.test, 7, CPU), meter.compute()
    assert found.pooled.targets == expected.pooled.targets
    assert found.pooled.mae == pytest.approx(expected.pooled.mae, rel=1e-6)
    assert found.mean_of_steps.rmse == pytest.approx(expected.mean_of_steps.rmse, rel=1e-6)


@both
def test_nothing_after_training_is_looked_at_and_the_last_of_training_is(name, tiny):
    config = replace(tiny, backbone=name)
    data = load_data(config)
    end = len(data.train) + data.window + data.horizon - 1  # the last training window's last target lies before it

    def later(values):
        values[end:] = 1e6

    def last(values):
        values[end - 1] = 500

    model = fitted(config, data)
    assert same(model, fitted(config, changed(data, later)))
    assert not same(model, fitted(config, changed(data, last)))


@both
def test_the_null_value_is_as_missing_as_nan(name, tiny):
    config = replace(tiny, backbone=name)
    data = load_data(config)
    gone = np.random.default_rng(0).random(data.data.values.shape) < 0.1

    def zeros(values):
        values[gone] = 0.0

    def nans(values):
        values[gone] = math.nan

    zero, nan, kept = (
        changed(data, change, null_value=null_value)
        for change, null_value in ((zeros, 0.0), (nans, 0.0), (zeros, None))
    )
    assert same(fitted(config, zero), fitted(config, nan))
    assert evaluate(fitted(config, zero), zero, zero.test, 64, CPU) == evaluate(
        fitted(config, nan), nan, nan.test, 64, CPU
    )
    assert not same(fitted(config, zero), fitted(config, kept))


def test_the_seed_of_the_run_draws_the_sample(tiny):
    config = replace(tiny, backbone="svr", synthetic=replace(tiny.synthetic, nodes=64, steps=1500))
    data = load_data(config)
    model = fitted(config, data)
    assert same(model, fitted(config, data))
    assert not same(model, fitted(replace(config, seed=1), data))


@both
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--stlora"], ["--stlora:", "--backbone", "fitted at once"]),
        (["--stlora", "--frozen", "--backbone-checkpoint={run}"], ["--stlora:"]),
        (["--frozen"], ["--frozen", "needs --stlora"]),
        (["--backbone-checkpoint={run}"], ["--backbone-checkpoint:", "fitted at once"]),
        (["--window=0"], ["--window"]),
        (["--device=gpu"], ["--device"]),
    ],
    ids=["stlora", "frozen adapter", "frozen", "checkpoint", "window", "device"],
)
def test_what_makes_no_sense_is_refused_in_one_line(name, more, words, tmp_path, capsys):
    given = options(tmp_path, name, *(option.format(run=tmp_path / "other") for option in more))
    assert run(train_main, given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert files(tmp_path) == []


def test_a_window_shorter_than_the_lags_is_named(tmp_path, capsys):
    assert run(train_main, options(tmp_path, "var", "--window=2")) == 2
    assert "lags: got 3, expected at most the 2 steps of the window" in capsys.readouterr().err


def test_an_unknown_name_lists_backbones_and_baselines(tmp_path, capsys):
    assert run(train_main, options(tmp_path, "vra")) == 2
    message = capsys.readouterr().err
    assert "'vra'" in message
    for name in ("lstm", "stgcn", "var", "svr"):
        assert name in message


def test_names_are_known_in_any_case(tiny):
    assert "VAR" in train(replace(tiny, backbone="VAR")).scores


@both
def test_a_training_part_of_null_values_alone_is_one_line_and_nothing_is_written(name, tiny, monkeypatch):
    data = load_data(tiny)
    steps = training_steps(data)

    def alternate(values):  # not all equal, or the scaler would refuse them; 0 is the null value, the others are NaN
        values[: steps.stop] = 0.0
        values[: steps.stop : 2] = math.nan
        values[0] = 5e-6

    gone = changed(data, alternate, null_value=0.0)
    monkeypatch.setattr("stlora_kernels.training.experiment.load_data", lambda config: gone)
    with pytest.raises(InputError, match=f"{name.upper()}: every training value is missing"):
        train(replace(tiny, backbone=name))
    assert files(tiny.output) == []


def test_scikit_learn_is_asked_for_by_its_extra_and_only_to_fit(tmp_path, tiny, capsys, monkeypatch):
    config = replace(tiny, backbone="svr", output=tmp_path / "fitted")
    scores = train(config).scores
    for module in [module for module in sys.modules if module.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert run(train_main, options(tmp_path, "svr")) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: sklearn")
    assert last.endswith(" is not installed; it comes with: pip install 'stlora_kernels[baselines]'")
    assert files(tmp_path) == ["fitted"]
    assert evaluate_run(config.output).scores == scores


def test_importing_the_baselines_does_not_import_scikit_learn():
    code = "import sys, stlora_kernels.training.experiment; print('sklearn' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


@both
def test_a_finished_run_is_refused_and_then_replaced(name, tiny):
    config = replace(tiny, backbone=name)
    train(config)
    with pytest.raises(InputError, match="--overwrite"):
        train(config)
    (config.output / "metrics.json").write_text("old")
    train(config, overwrite=True)
    assert json.loads((config.output / "metrics.json").read_text())["model"] == name.upper()


def test_a_backbone_does_not_start_from_a_baseline(tiny):
    train(replace(tiny, backbone="var"))
    other = replace(tiny, backbone_checkpoint=tiny.output, output=tiny.output.with_name("other"))
    with pytest.raises(InputError, match="holds a 'var', expected a 'lstm'"):
        train(other)


def test_ctrl_c_while_fitting_leaves_nothing(tmp_path, capsys, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(VAR, "learn", stopped)
    assert run(train_main, options(tmp_path, "var")) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"
    assert files(tmp_path) == []


class Mean(Baseline):
    """A user's own: the training mean, a little higher each step."""

    def __init__(self, num_nodes, in_features, out_features, window, horizon, adjacency, steps_per_day):
        super().__init__(num_nodes, window, horizon)
        self.slope = nn.Parameter(torch.zeros(1), requires_grad=False)

    def learn(self, z, seed):
        self.slope.fill_(0.01)
        return "mean and slope"

    def ahead(self, z):
        return self.slope * torch.arange(self.horizon)[:, None].expand(len(z), -1, z.shape[2])


def test_a_baseline_of_ones_own_is_imported_and_fitted(tiny, monkeypatch):
    module = types.ModuleType("own_baselines")
    module.Mean = Mean
    monkeypatch.setitem(sys.modules, "own_baselines", module)
    config = replace(tiny, backbone="own_baselines:Mean")
    report = train(config)
    assert report.notes[0].startswith("Fit: mean and slope, ")
    assert next(iter(report.scores)) == "Mean"
    assert load_checkpoint(config.output)[0]["slope"].item() == pytest.approx(0.01)
    assert evaluate_run(config.output).scores == report.scores


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", [VAR, SVR])
def test_a_gpu_scores_as_the_cpu_does(kind, tiny):
    config = replace(tiny, backbone=kind.__name__.lower())
    cpu = train(replace(config, device="cpu")).scores
    gpu = train(replace(config, device="cuda", output=tiny.output.with_name("gpu"))).scores
    assert gpu[kind.__name__].pooled.mae == pytest.approx(cpu[kind.__name__].pooled.mae, rel=1e-5)
