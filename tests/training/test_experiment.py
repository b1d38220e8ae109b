"""A run from configuration to result, the folder it leaves, and the same result from the folder."""

import json
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stlora_kernels.errors import InputError
from stlora_kernels.training import experiment
from stlora_kernels.training.checkpoint import load_checkpoint, save_checkpoint
from stlora_kernels.training.experiment import evaluate_run, load_data, train
from stlora_kernels.training.options import load_yaml
from stlora_kernels.training.trainer import NonFiniteLossError


def files(folder):
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


FINISHED = ["best.json", "best.safetensors", "config.yaml", "last.safetensors", "metrics.json"]


def test_run_folder_holds_configuration_checkpoint_and_metrics(tiny):
    report = train(tiny)
    assert files(tiny.output) == FINISHED
    assert load_yaml(tiny.output / "config.yaml") == tiny
    assert str(tiny.recipe()) in (tiny.output / "config.yaml").read_text()
    metrics = json.loads((tiny.output / "metrics.json").read_text())
    assert list(metrics["test"]) == ["lstm + ST-LoRA", "HA (weekly slot)", "HA (window mean)", "HA (last value)"]
    assert metrics["test"]["lstm + ST-LoRA"] == report.scores["lstm + ST-LoRA"].as_dict()
    assert len(metrics["test"]["lstm + ST-LoRA"]["steps"]) == 12
    assert metrics["config"] == tiny.complete().as_dict()
    assert metrics["versions"]["torch"] == torch.__version__
    assert len(metrics["epochs"]) == 2
    assert metrics["seconds_per_epoch"] > 0
    counts = metrics["parameters"]
    assert counts["backbone"] == 97_932
    assert counts["total"] == counts["backbone"] + counts["adapter"]
    assert counts["overhead_percent"] == pytest.approx(100 * counts["adapter"] / 97_932)


def test_a_quick_run_is_called_one_below_the_table(tiny):
    report = train(replace(tiny, max_batches=1))
    assert "Quick run: 1 of 3 training batches per epoch (--max-batches)" in report.notes
    report = train(replace(tiny, max_batches=3), overwrite=True)
    assert not any("Quick run" in note for note in report.notes)


def test_checkpoint_says_what_it_is_of(tiny):
    train(tiny)
    tensors, about = load_checkpoint(tiny.output)
    assert about["config"] == tiny.complete().as_dict()
    assert about["epoch"] == json.loads((tiny.output / "metrics.json").read_text())["best_epoch"]
    assert about["scaler"].keys() == {"mean", "std"}
    assert about["validation"]["pooled"]["mae"] > 0
    assert any(name.startswith("backbone.") for name in tensors)


@pytest.mark.parametrize("stlora", [True, False], ids=["adapter", "plain"])
def test_evaluate_repeats_the_result_to_the_digit(stlora, tiny, capsys):
    config = replace(tiny, stlora=stlora)
    train(config).print()
    table = capsys.readouterr().out
    again = evaluate_run(config.output)
    again.print()
    *repeated, checkpoint = capsys.readouterr().out.splitlines()
    assert repeated == table.splitlines()[: len(repeated)]
    assert len(repeated) > 15
    assert str(config.output) in checkpoint
    metrics = json.loads((config.output / "metrics.json").read_text())
    assert {name: scores.as_dict() for name, scores in again.scores.items()} == metrics["test"]


def test_the_best_epoch_is_tested_and_not_the_last(tiny, monkeypatch):
    step = experiment.Trainer.step

    def spoils_the_weights_after_the_first_epoch(trainer, batch, epoch, position):
        if epoch > 1:
            for parameter in trainer.model.parameters():
                parameter.data.fill_(1.0)
        return step(trainer, batch, epoch, position)

    monkeypatch.setattr(experiment.Trainer, "step", spoils_the_weights_after_the_first_epoch)
    report = train(tiny)
    one_epoch = train(replace(tiny, epochs=1, output=tiny.output.with_name("one")))
    assert load_checkpoint(tiny.output)[1]["epoch"] == 1
    assert report.scores == one_epoch.scores


def test_same_seed_same_metrics(tiny):
    first = train(tiny).scores
    assert train(replace(tiny, output=tiny.output.with_name("again"))).scores == first


def test_a_finished_run_is_not_overwritten_unless_told_to(tiny):
    train(tiny)
    before = (tiny.output / "metrics.json").read_text()
    with pytest.raises(InputError, match=r"run holds a finished run; .*--overwrite"):
        train(tiny)
    assert (tiny.output / "metrics.json").read_text() == before
    train(replace(tiny, epochs=1), overwrite=True)
    assert len(json.loads((tiny.output / "metrics.json").read_text())["epochs"]) == 1


@pytest.mark.parametrize("name", FINISHED)
def test_files_of_others_are_not_overwritten_unless_told_to(name, tiny):
    tiny.output.mkdir()
    (tiny.output / name).write_text("mine")
    with pytest.raises(InputError, match=r"--output: .*run holds .*--overwrite"):
        train(tiny)
    assert (tiny.output / name).read_text() == "mine"
    assert files(tiny.output) == [name]


def test_a_file_in_the_place_of_the_run_folder_is_named(tiny):
    tiny.output.write_text("")
    with pytest.raises(InputError, match=r"--output: .*run cannot be made"):
        train(tiny)


def test_frozen_trains_the_adapter_and_leaves_the_trained_backbone(tiny):
    plain = replace(tiny, stlora=False, output=tiny.output.with_name("plain"))
    train(plain)
    frozen = replace(tiny, frozen=True, backbone_checkpoint=plain.output / "best.safetensors")
    report = train(frozen)
    assert "lstm + ST-LoRA (frozen backbone)" in report.scores
    backbone, adapted = load_checkpoint(plain.output)[0], load_checkpoint(frozen.output)[0]
    assert all(torch.equal(adapted[f"backbone.{name}"], tensor) for name, tensor in backbone.items())
    assert any(adapted[name].abs().sum() > 0 for name in adapted if name.endswith("lora_A"))
    # The run stands on its own: the plain one is not needed to test it again.
    for file in plain.output.iterdir():
        file.unlink()
    assert evaluate_run(frozen.output).scores == report.scores


def test_joint_training_can_start_from_a_trained_backbone_even_of_an_adapted_run(tiny):
    train(tiny)
    again = replace(tiny, backbone_checkpoint=tiny.output, output=tiny.output.with_name("again"))
    train(again)
    start, end = load_checkpoint(tiny.output)[0], load_checkpoint(again.output)[0]
    assert any(not torch.equal(start[name], end[name]) for name in start if name.startswith("backbone."))


def test_a_checkpoint_of_another_backbone_is_named(tiny):
    train(replace(tiny, stlora=False))
    other = replace(
        tiny, backbone="stgcn", frozen=True, backbone_checkpoint=tiny.output, output=tiny.output.with_name("other")
    )
    with pytest.raises(InputError, match="holds a 'lstm', expected a 'stgcn'"):
        train(other)
    assert not other.output.exists()


def test_a_checkpoint_of_other_sizes_is_named_with_the_tensor(tiny):
    train(replace(tiny, stlora=False, horizon=6))
    other = replace(tiny, backbone_checkpoint=tiny.output, output=tiny.output.with_name("other"))
    with pytest.raises(InputError, match=r"head\.2\.bias is \[6\] in the checkpoint and \[12\] in the model"):
        train(other)


def test_a_run_is_not_tested_on_other_data(tiny, monkeypatch):
    train(tiny)
    load_data = experiment.load_data

    def other(config):
        return load_data(replace(config, synthetic=replace(config.synthetic, seed=1)))

    monkeypatch.setattr(experiment, "load_data", other)
    with pytest.raises(InputError, match="was trained on other data"):
        evaluate_run(tiny.output)


def test_a_diverged_training_writes_nothing_when_no_epoch_was_good(tiny):
    with pytest.raises(NonFiniteLossError, match=r"batch 2 of 3; .*; no epoch was done, nothing was written"):
        train(replace(tiny, learning_rate=1e30))
    assert files(tiny.output) == []


def test_ctrl_c_keeps_the_best_so_far_and_says_so(tiny, monkeypatch):
    run_epoch = experiment.Trainer.run_epoch

    def stopped_in_the_second(trainer, number):
        if number == 2:
            raise KeyboardInterrupt
        return run_epoch(trainer, number)

    monkeypatch.setattr(experiment.Trainer, "run_epoch", stopped_in_the_second)
    with pytest.raises(KeyboardInterrupt, match=r"kept .*best\.safetensors of epoch 1, validation MAE \d"):
        train(tiny)
    assert files(tiny.output) == ["best.json", "best.safetensors", "config.yaml", "last.safetensors"]
    assert evaluate_run(tiny.output).scores["lstm + ST-LoRA"].pooled.mae > 0
    with pytest.raises(InputError, match="run holds an unfinished run"):
        train(tiny)


def test_ctrl_c_before_the_first_epoch_is_done_leaves_nothing(tiny, monkeypatch):
    def stopped(trainer, number):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment.Trainer, "run_epoch", stopped)
    with pytest.raises(KeyboardInterrupt, match="no epoch was done, nothing was written"):
        train(tiny)
    assert files(tiny.output) == []


def test_an_interrupted_rerun_does_not_keep_the_metrics_of_the_run_before(tiny, monkeypatch):
    train(tiny)

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(replace(tiny, seed=1), overwrite=True)
    unfinished = ["best.json", "best.safetensors", "config.yaml", "last.previous.safetensors", "last.safetensors"]
    assert files(tiny.output) == unfinished
    assert load_checkpoint(tiny.output)[1]["config"]["seed"] == 1


def test_a_configuration_used_again_leaves_open_what_it_left_open(tiny):
    """The settings of one backbone are not those of another."""
    train(replace(tiny, backbone="agcrn", stlora=False, backbone_args=("hidden=4",)))
    again = replace(load_yaml(tiny.output / "config.yaml"), backbone="lstm", backbone_args=())
    assert again.recipe().learning_rate == 1e-3


def test_a_run_of_before_the_backbones_arguments_is_built_with_its_defaults(tiny, monkeypatch):
    monkeypatch.setattr("stlora_kernels.training.experiment.load_data", lambda config: load_data(tiny))
    train(replace(tiny, dataset="PEMS08", backbone="agcrn", stlora=False, backbone_args=("embedding=10",)))
    tensors, about = load_checkpoint(tiny.output)
    del about["config"]["backbone_args"]
    save_checkpoint(tiny.output / "best.safetensors", tensors, about)
    evaluate_run(tiny.output)  # the published embedding of PEMS08 is 2


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        (("heads=2", "layers=1"), ("layers=1",), "heads=2 layers=1, this run layers=1"),
        (("layers=1",), (), "has --backbone-args layers=1, this run none"),
    ],
)
def test_a_checkpoint_of_other_arguments_is_refused(tiny, first, then, words):
    """Heads change no size, only the function."""
    plain = replace(tiny, backbone="staeformer", stlora=False, epochs=1, max_batches=1)
    train(replace(plain, backbone_args=first))
    adapted = replace(plain, stlora=True, backbone_checkpoint=tiny.output, output=tiny.output.with_name("adapted"))
    with pytest.raises(InputError, match=words):
        train(replace(adapted, backbone_args=then))
    train(replace(adapted, backbone_args=first, backbone="STAEformer"))


class Odd(nn.Module):
    """A backbone of one's own that returns something else."""

    def __init__(self, what, **shapes):
        super().__init__()
        self.what, self.level = what, nn.Parameter(torch.zeros(()))

    def forward(self, x):
        y = self.level.expand(len(x), 12, x.shape[2], 1)
        returned = {"tuple": (y,), "nothing": None, "no channel": y[..., 0], "one node": y[:, :, :1]}
        return returned[self.what]


@pytest.mark.parametrize("stlora", [False, True])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("tuple", "its forecast is a tuple, expected a tensor"),
        ("nothing", "its forecast is a NoneType, expected a tensor"),
        ("no channel", r"its forecast has shape \[64, 12, 5\], expected \[64, 12, 5, 1\]"),
        ("one node", r"its forecast has shape \[64, 12, 1, 1\], expected \[64, 12, 5, 1\]"),
    ],
)
def test_what_a_backbone_of_ones_own_returns_is_checked(tiny, monkeypatch, what, words, stlora):
    monkeypatch.setitem(sys.modules, "odd_backbone", SimpleNamespace(Odd=partial(Odd, what)))
    with pytest.raises(InputError, match=words):
        train(replace(tiny, backbone="odd_backbone:Odd", stlora=stlora))
    assert not tiny.output.exists()


def test_a_model_without_parameters_cannot_be_trained(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "odd_backbone", SimpleNamespace(Idle=lambda **shapes: nn.Identity()))
    with pytest.raises(InputError, match="the model has no parameters to train"):
        train(replace(tiny, backbone="odd_backbone:Idle", stlora=False))
