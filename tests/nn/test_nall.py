"""NALL and FusedNALL: the same layer twice."""

import copy
import pickle

import pytest
import torch
from torch import nn

import stlora_kernels as sk

FACTORS = ("node", "node_b", "core", "shared")


def trained(cls, factor="node", **options):
    """A layer whose low-rank path is not zero."""
    torch.manual_seed(0)
    layer = cls(5, 7, 6, rank=3, factor=factor, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-1, 1)
    return layer


@pytest.mark.parametrize("factor", FACTORS)
def test_a_new_layer_equals_the_shared_linear_layer(factor):
    x = torch.randn(4, 5, 7)
    for cls in (sk.NALL, sk.FusedNALL):
        layer = cls(5, 7, 6, rank=3, factor=factor)
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("factor", FACTORS)
def test_both_start_from_the_same_values_under_a_seed(factor):
    torch.manual_seed(3)
    plain = sk.NALL(5, 7, 6, factor=factor)
    torch.manual_seed(3)
    fused = sk.FusedNALL(5, 7, 6, factor=factor)
    assert plain.state_dict().keys() == fused.state_dict().keys()
    for ours, theirs in zip(plain.parameters(), fused.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_base_starts_as_nn_linear():
    torch.manual_seed(3)
    linear = nn.Linear(7, 6)
    torch.manual_seed(3)
    layer = sk.NALL(5, 7, 6)
    assert torch.equal(layer.weight, linear.weight)
    assert torch.equal(layer.bias, linear.bias)


@pytest.mark.parametrize("factor", FACTORS)
def test_formula_against_a_loop_over_nodes(factor):
    layer = trained(sk.NALL, factor, alpha=0.5, activation="leaky_relu", negative_slope=0.2)
    x = torch.randn(4, 5, 7)
    y = layer(x)
    for n in range(5):
        A = layer.lora_A[n if factor == "node" else 0]
        B = layer.lora_B[n if factor in ("node", "node_b") else 0]
        core = layer.lora_core[n] if factor == "core" else torch.eye(3)
        expected = x[:, n] @ layer.weight.T + layer.bias + 0.5 * x[:, n] @ (A @ core @ B).T
        torch.testing.assert_close(y[:, n], nn.functional.leaky_relu(expected, 0.2))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_fused_gives_the_numbers_of_plain(factor, training):
    plain, x = trained(sk.NALL, factor, dropout=0.3).train(training), torch.randn(4, 5, 7)
    fused = trained(sk.FusedNALL, factor, dropout=0.3).train(training)
    outputs = []
    for layer in (plain, fused):
        torch.manual_seed(9)  # the dropout mask, too, is the same
        outputs.append(layer(x))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(outputs[1], outputs[0])
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("factor", FACTORS)
def test_state_dicts_are_interchangeable(factor):
    plain, fused = trained(sk.NALL, factor), sk.FusedNALL(5, 7, 6, rank=3, factor=factor)
    fused.load_state_dict(plain.state_dict())
    x = torch.randn(4, 5, 7)
    torch.testing.assert_close(fused(x), plain(x))
    back = sk.NALL(5, 7, 6, rank=3, factor=factor)
    back.load_state_dict(fused.state_dict())
    assert torch.equal(back(x), plain(x))


def test_dropout_touches_the_low_rank_path_only():
    layer = sk.FusedNALL(5, 7, 6, dropout=0.9)  # new: its low-rank path is zero
    x = torch.randn(4, 5, 7)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_freeze_base_freezes_the_weight_but_not_the_bias():
    layer = sk.FusedNALL(5, 7, 6, freeze_base=True)
    layer(torch.randn(4, 5, 7)).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None
    assert layer.lora_A.grad is not None


def test_node_index_serves_a_subgraph():
    layer, x = trained(sk.FusedNALL), torch.randn(4, 5, 7)
    nodes = torch.tensor([3, 0, 3])
    torch.testing.assert_close(layer(x[:, nodes], node_index=nodes), layer(x)[:, nodes])


def test_fuse_swaps_every_layer_and_shares_the_parameters():
    class Custom(sk.NALL):
        pass

    model = nn.ModuleDict(
        {"a": nn.Sequential(trained(sk.NALL), nn.ReLU()), "b": Custom(5, 7, 6), "c": trained(sk.NALL)}
    )
    before, x = dict(model.named_parameters()), torch.randn(4, 5, 7)
    expected = model["a"](x)
    calls = []
    model["c"].register_forward_hook(lambda *_: calls.append(1))
    assert sk.fuse(model) is model
    assert type(model["a"][0]) is sk.FusedNALL
    assert type(model["b"]) is Custom, "a subclass may compute something else"
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    torch.testing.assert_close(model["a"](x), expected)
    model["c"](x)
    assert calls, "hooks move along"


def test_fuse_of_a_layer_itself_gives_the_fused_layer():
    layer = trained(sk.NALL)
    fused = sk.fuse(layer)
    assert type(fused) is sk.FusedNALL
    assert fused.weight is layer.weight
    fused.to(torch.float64)
    assert fused(torch.randn(2, 5, 7, dtype=torch.float64)).dtype == torch.float64


def test_copies_pickles_and_functional_calls():
    layer, x = trained(sk.FusedNALL, activation="relu"), torch.randn(4, 5, 7)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))
    doubled = {name: 2 * value for name, value in layer.state_dict().items()}
    other = copy.deepcopy(layer)
    other.load_state_dict(doubled)
    assert torch.equal(torch.func.functional_call(layer, doubled, (x,)), other(x))


def test_export_keeps_the_fused_operator():
    layer, x = trained(sk.FusedNALL).eval(), torch.randn(4, 5, 7)
    program = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    assert any(node.target is torch.ops.stlora.nall.default for node in program.graph.nodes)
    wider = torch.randn(9, 5, 7)
    torch.testing.assert_close(program.module()(wider), layer(wider))


def test_the_module_says_what_it_is():
    text = repr(sk.FusedNALL(5, 7, 6, dropout=0.1, activation="relu", factor="core"))
    for part in ("num_nodes=5", "in_features=7", "out_features=6", "rank=16", "factor='core'", "dropout=0.1", "'relu'"):
        assert part in text


@pytest.mark.parametrize("cls", [sk.NALL, sk.FusedNALL])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(num_nodes=0), "num_nodes: got 0, expected an integer of at least 1"),
        (dict(in_features=-1), "in_features: got -1"),
        (dict(out_features=0), "out_features: got 0"),
        (dict(rank=0), "rank: got 0"),
        (dict(dropout=1.0), r"dropout: got 1.0, expected a probability in \[0, 1\)"),
        (dict(factor="edge"), "factor: got 'edge', expected 'node' or 'node_b' or 'core' or 'shared'"),
        (dict(activation="gelu"), "activation: got 'gelu'"),
        (dict(negative_slope=-0.1), "negative_slope: got -0.1"),
    ],
    ids=lambda p: next(iter(p)) if isinstance(p, dict) else "",
)
def test_bad_arguments_are_named(cls, change, message):
    with pytest.raises(ValueError, match=message):
        cls(**{"num_nodes": 5, "in_features": 7, "out_features": 6, **change})


def test_fuse_keeps_a_layer_used_twice_one_layer():
    layer = trained(sk.NALL)
    model = nn.ModuleDict({"a": nn.ModuleList([layer, layer]), "b": nn.Sequential(layer)})
    sk.fuse(model)
    assert type(model["a"][0]) is sk.FusedNALL
    assert model["a"][0] is model["a"][1] is model["b"][0]


@pytest.mark.parametrize("make", [lambda b: sk.FusedNALL(3, 4, 5, backend=b), lambda b: sk.fuse(sk.NALL(3, 4, 5), b)])
def test_an_unknown_backend_is_named_at_once(make):
    with pytest.raises(ValueError, match="backend: got 'nope', expected one of cpu, cuda, triton, reference"):
        make("nope")
