"""The published trainings: what the table says, who may overrule it, and that every backbone has a row."""

from dataclasses import fields, replace

import pytest
import torch

from stlora_kernels.backbones import backbone_names
from stlora_kernels.data.registry import DATASETS
from stlora_kernels.errors import InputError
from stlora_kernels.training.config import TrainConfig, arguments_of
from stlora_kernels.training.experiment import load_data, train
from stlora_kernels.training.model import build_model
from stlora_kernels.training.published import Recipe, published


@pytest.mark.parametrize("dataset", [*(info.name for info in DATASETS.values()), "synthetic", "my/own.csv"])
@pytest.mark.parametrize("backbone", [*backbone_names(), "my.package:Model"])
def test_every_row_can_be_trained_with(backbone, dataset):
    config = TrainConfig(backbone=backbone, dataset=dataset)
    config.validate()
    assert all(value is not None for value in vars(config.recipe()).values())
    assert config.complete().recipe() == config.recipe()


def test_every_backbone_has_a_row_of_its_own():
    other = published("my.package:Model", "PEMS08")
    assert all(published(name, "PEMS08") != other for name in backbone_names())


@pytest.mark.parametrize(
    ("backbone", "dataset", "expected"),
    [
        ("lstm", "PEMS08", {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 1e-4, "clip": 5.0}),
        ("lstm", "PEMS08", {"batch_size": 64, "milestones": (), "step_size": 0}),
        ("STGCN", "any.csv", {"optimizer": "adamw", "weight_decay": 1e-3, "step_size": 10, "gamma": 0.95, "clip": 0.0}),
        ("agcrn", "PEMS08", {"learning_rate": 3e-3, "patience": 15, "backbone_args": ("embedding=2",)}),
        ("agcrn", "PEMS04", {"learning_rate": 3e-3, "backbone_args": ()}),
        ("staeformer", "metr-la", {"milestones": (20, 30), "gamma": 0.1, "batch_size": 16, "loss": "mae"}),
        ("staeformer", "PEMS07", {"milestones": (15, 35, 50), "weight_decay": 1e-3, "loss": "huber"}),
        ("d2stgnn", "METR-LA", {"warmup": 0, "curriculum": 6, "learning_rate": 2e-3, "backbone_args": ()}),
        ("d2stgnn", "PEMS04", {"warmup": 30, "curriculum": 3, "milestones": (1, 30, 38, 46, 54, 200)}),
        ("my.package:Model", "PEMS08", {"epochs": 30, "weight_decay": 5e-4, "step_size": 10, "gamma": 0.1}),
    ],
)
def test_the_table_says_what_was_published(backbone, dataset, expected):
    recipe = vars(published(backbone, dataset))
    assert {name: recipe[name] for name in expected} == expected


def test_a_log_says_how_a_model_is_trained(tiny, capsys):
    assert str(published("d2stgnn", "PEMS08")) == (
        "adam 0.002; weight decay 1e-05; x 0.5 after epochs 1, 30, 38, 46, 54, 200; mae; batches of 16; "
        "gradients of at most 5; after 30 epochs one more step of the horizon every 3; at most 300 epochs, patience 100"
    )
    assert "x 0.95 every 10 epochs" in str(published("stgcn", "PEMS08"))
    train(replace(tiny, epochs=1, max_batches=1))
    assert f"\n{tiny.recipe()}".replace("at most 2 epochs", "at most 1 epochs") in capsys.readouterr().err


def test_options_are_those_of_the_recipe_and_overrule_it():
    assert {field.name for field in fields(Recipe)} <= {field.name for field in fields(TrainConfig)}
    config = TrainConfig(backbone="staeformer", dataset="PEMS08", epochs=7, clip=1.0)
    assert config.recipe() == replace(published("staeformer", "PEMS08"), epochs=7, clip=1.0)


def test_one_way_of_decay_takes_the_place_of_the_other():
    config = TrainConfig(backbone="staeformer", dataset="PEMS08", step_size=5)
    assert (config.recipe().step_size, config.recipe().milestones) == (5, ())
    config = TrainConfig(backbone="stgcn", milestones=(3,))
    assert (config.recipe().step_size, config.recipe().milestones) == (0, (3,))
    config = TrainConfig(backbone="staeformer", dataset="PEMS08", step_size=0, milestones=())
    assert (config.recipe().step_size, config.recipe().milestones) == (0, ())
    with pytest.raises(InputError, match="--milestones and --step-size: got both"):
        TrainConfig(step_size=5, milestones=(3,)).validate()


def test_a_decay_that_is_asked_for_where_none_was_published_does_decay():
    assert TrainConfig(backbone="lstm", step_size=5).recipe().gamma < 1


def test_arguments_of_the_backbones_own():
    texts = ("embedding=4", "rate=1e-3", "channels=[8, 4]", "bias=false", "mode=same", "text=a=b")
    expected = {"embedding": 4, "rate": 1e-3, "channels": [8, 4], "bias": False, "mode": "same", "text": "a=b"}
    assert arguments_of(texts) == expected


@pytest.mark.parametrize("text", ["embedding", "=4", "two words=4", "bias=True", "bias=None"])
def test_what_is_no_argument_is_refused(text):
    with pytest.raises(InputError, match=r"--backbone-args: got '.*', expected name=value"):
        TrainConfig(backbone_args=(text,)).validate()


def test_arguments_reach_the_backbone_over_those_published(tiny):
    config = replace(tiny, backbone="agcrn", stlora=False)
    data = load_data(config)

    def embedding(**changes):
        return build_model(replace(config, **changes), data, torch.device("cpu")).state_dict()["embedding"].shape[1]

    assert embedding() == 10
    assert embedding(dataset="PEMS08") == 2
    assert embedding(dataset="PEMS08", backbone_args=("embedding=3", "hidden=4")) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes=3", "backbone: 'lstm' cannot be called with .*unexpected keyword argument 'nodes'"),
        ("num_nodes=3", "--backbone-args: got num_nodes, which the data decide"),
        ("dropout=2", "dropout: got 2"),
        ("dropout=much", "dropout: got 'much'"),
        ("hidden=many", "hidden: got 'many'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(tiny, text, message):
    with pytest.raises(InputError, match=message):
        build_model(replace(tiny, backbone_args=(text,)), load_data(tiny), torch.device("cpu"))
