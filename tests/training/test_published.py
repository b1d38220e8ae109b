"""The published trainings: what the table says, who may overrule it, and that every backbone has a row."""

import json
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


@pytest.mark.parametrize(
    "row",
    # backbone, set: epochs, patience, batch; rate, weight decay; decay; gradients; curriculum (written down apart)
    """
    lstm        PEMS04    100   30  64  0.001  0.0001  never             5  0 0
    stgcn       PEMS04   1000   10  32  0.001  0.001   10 0.95           0  0 0
    gwnet       PEMS04    100  100  64  0.001  0.0001  never             5  0 0
    agcrn       PEMS04    100   15  64  0.003  0       never             0  0 0
    staeformer  METR-LA   200   30  16  0.001  0.0003  [20,30] 0.1       0  0 0
    staeformer  PEMS-BAY  300   20  16  0.001  0.0001  [10,30] 0.1       0  0 0
    staeformer  PEMS03    300   20  16  0.001  0.0005  [15,30,40] 0.1    0  0 0
    staeformer  PEMS04    300   20  16  0.001  0.0005  [15,30,50] 0.1    0  0 0
    staeformer  PEMS07    300   20  16  0.001  0.001   [15,35,50] 0.1    0  0 0
    staeformer  PEMS08    300   30  16  0.001  0.0015  [25,45,65] 0.1    0  0 0
    d2stgnn     METR-LA    80  100  32  0.002  0.00001 [1,30,38,46,54,62,70,80] 0.5  5  0 6
    d2stgnn     PEMS-BAY   80  100  32  0.002  0.00001 [1,30,38,46,54,62,70,80] 0.5  5  30 3
    d2stgnn     PEMS03    100  100  16  0.002  0.00001 [1,30,38,46,54,150] 0.5       5  30 3
    d2stgnn     PEMS04    300  100  32  0.002  0.00001 [1,30,38,46,54,200] 0.5       5  30 3
    d2stgnn     PEMS07    100  100   8  0.002  0.00001 [1,30,38,46,54,150] 0.5       5  30 3
    d2stgnn     PEMS08    300  100  16  0.002  0.00001 [1,30,38,46,54,200] 0.5       5  30 3
    """.strip().splitlines(),
    ids=lambda row: "-".join(row.split()[:2]),
)
def test_every_figure_of_the_table(row):
    backbone, dataset, epochs, patience, batch, rate, weight_decay, decay, *rest = row.split()
    gamma = rest.pop(0) if decay != "never" else None
    recipe = published(backbone, dataset)
    assert (recipe.epochs, recipe.patience, recipe.batch_size) == (int(epochs), int(patience), int(batch))
    assert (recipe.learning_rate, recipe.weight_decay) == (float(rate), float(weight_decay))
    assert (recipe.clip, recipe.warmup, recipe.curriculum) == tuple(map(float, rest))
    assert recipe.milestones == tuple(json.loads(decay) if decay[0] == "[" else ())
    assert recipe.step_size == (int(decay) if decay.isdigit() else 0)
    assert gamma is None or recipe.gamma == float(gamma)


@pytest.mark.parametrize("dataset", [info.name for info in DATASETS.values()])
def test_sizes_of_the_model_that_differ_between_the_sets(dataset):
    twelve = ("node_embedding=12", "time_embedding=12")
    assert published("d2stgnn", dataset).backbone_args == (
        twelve if dataset in ("PEMS-BAY", "PEMS03", "PEMS04") else ()
    )
    assert published("agcrn", dataset).backbone_args == (("embedding=2",) if dataset == "PEMS08" else ())
    on_flow = dataset in ("PEMS03", "PEMS04", "PEMS07", "PEMS08")
    assert published("staeformer", dataset).loss == ("huber" if on_flow else "mae")


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
        asked = replace(config, **changes)
        return build_model(asked.complete(), data, torch.device("cpu")).state_dict()["embedding"].shape[1]

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
