"""Backbones by name."""

import pytest
import torch
from torch import nn

from stlora_kernels.backbones import LSTM, STGCN, GraphWaveNet, backbone_names, build_backbone, register
from stlora_kernels.errors import InputError

SHARED = {
    "num_nodes": 4,
    "in_features": 3,
    "out_features": 1,
    "window": 12,
    "horizon": 6,
    "adjacency": torch.ones(4, 4),
    "steps_per_day": 288,
}


class OwnBackbone(nn.Module):
    """A user's backbone: forecasts its own argument."""

    def __init__(self, num_nodes, in_features, out_features, window, horizon, adjacency, steps_per_day, value=0.0):
        super().__init__()
        self.horizon, self.value = horizon, value

    def forward(self, x):
        return torch.full((x.shape[0], self.horizon, x.shape[2], 1), self.value)


def not_a_module(**_):
    return 3


@pytest.fixture
def own_backbones(monkeypatch):
    """This file as a module that can be imported by name."""
    import sys
    import types

    module = types.ModuleType("own_backbones")
    module.OwnBackbone, module.not_a_module = OwnBackbone, not_a_module
    monkeypatch.setitem(sys.modules, "own_backbones", module)


@pytest.mark.parametrize(
    ("name", "kind"), [("lstm", LSTM), ("stgcn", STGCN), ("STGCN", STGCN), ("gwnet", GraphWaveNet)]
)
def test_builds_by_name_in_any_case(name, kind):
    backbone = build_backbone(name, **SHARED)
    assert type(backbone) is kind
    assert backbone(torch.randn(2, 12, 4, 3)).shape == (2, 6, 4, 1)


def test_own_arguments_reach_the_backbone():
    assert build_backbone("stgcn", **SHARED, dropout=0.25).head[2].p == 0.25


def test_names_are_sorted_and_complete():
    names = backbone_names()
    assert {"gwnet", "lstm", "stgcn"} <= set(names)
    assert list(names) == sorted(names)


@pytest.mark.parametrize("name", backbone_names())
def test_every_backbone_has_the_shared_signature(name):
    positional = build_backbone(name, **SHARED), type(build_backbone(name, **SHARED))(*SHARED.values())
    assert [p.shape for p in positional[0].parameters()] == [p.shape for p in positional[1].parameters()]


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(InputError, match=r"backbone: got 'stgnc', expected one of .*lstm, .*stgcn"):
        build_backbone("stgnc", **SHARED)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'lstm' is registered twice"):
        register("lstm")(OwnBackbone)
    assert type(build_backbone("lstm", **SHARED)) is LSTM


def test_a_class_of_ones_own_is_imported(own_backbones):
    backbone = build_backbone("own_backbones:OwnBackbone", **SHARED, value=2.0)
    assert torch.equal(backbone(torch.randn(1, 12, 4, 3)), torch.full((1, 6, 4, 1), 2.0))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Model", r"'no_such_module:Model' cannot be imported: No module named"),
        ("own_backbones:Missing", r"'own_backbones:Missing' cannot be imported: .*no attribute 'Missing'"),
        ("os:path", r"'os:path' is a module, expected a class that makes a backbone"),
        ("math:sqrt", r"'math:sqrt' cannot be called with num_nodes, .*: .*argument"),
        ("builtins:dict.fromkeys", r"'builtins:dict.fromkeys' cannot be imported"),
        ("builtins:min", r"'builtins:min' cannot be called with num_nodes, .*: no signature"),
        (":Model", r"':Model' cannot be imported"),
        ("..relative:Model", r"'..relative:Model' cannot be imported"),
        ("own_backbones:not_a_module", r"'own_backbones:not_a_module' made a int, expected a torch.nn.Module"),
    ],
)
def test_what_cannot_be_imported_is_named(own_backbones, name, message):
    with pytest.raises(InputError, match=message):
        build_backbone(name, **SHARED)
