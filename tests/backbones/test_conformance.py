"""What every backbone must do; one that is registered is tested here, a table knows what is particular about it."""

import copy
import inspect
import pickle
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from backbone_cases import (
    CASES,
    GRAPHS,
    N,
    case_of,
    every_backbone,
    graphs,
    make,
    make_tiny,
    random_graph,
    signal,
    undirected_binary,
    with_random_norms,
)
from torch import nn

from stlora_kernels.backbones import build_backbone
from stlora_kernels.errors import InputError

SIZES = ("num_nodes", "in_features", "out_features", "window", "horizon")


def has_dropout(name: str) -> bool:
    return "dropout" in own_arguments(name)


def own_arguments(name: str) -> dict[str, Any]:
    """The backbone's own arguments and their defaults."""
    parameters = inspect.signature(type(make(name)).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def assert_gradients_are_finite(model: nn.Module, *, reached: bool = False) -> None:
    """Of what is trained, and of nothing else; ``reached``: none of them is 0 everywhere."""
    for name, p in model.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
        assert p.grad is None or p.grad.isfinite().all(), name
        assert not reached or p.grad is None or p.grad.any(), name


@every_backbone
@pytest.mark.parametrize("batch", [1, 3], ids=["batch-of-one", "batch-of-3"])
@graphs
def test_trains_on_any_graph(name, graph, batch):
    model = make(name, GRAPHS[graph](), out_features=2)
    y = model(signal(batch))
    assert y.shape == (batch, 4, N, 2)
    assert y.isfinite().all()
    y.square().sum().backward()
    assert_gradients_are_finite(model, reached=graph == "directed-weighted")


@every_backbone
def test_published_sizes_reach_every_trained_parameter_from_the_first_step(name):
    """A curriculum starts with a loss of one step: no parameter may be left without a gradient then (DDP)."""
    model = make(name, **own_arguments(name), horizon=12)
    y = model(signal(4))
    assert y.shape == (4, 12, N, 1)
    y[:, :1].square().sum().backward()
    assert_gradients_are_finite(model)


@every_backbone
@pytest.mark.parametrize("batch", [1, 2], ids=["batch-of-one", "batch-of-2"])
def test_one_node_trains(name, batch):
    model = make(name, torch.ones(1, 1), num_nodes=1)
    y = model(signal(batch, num_nodes=1))
    assert y.isfinite().all()
    y.square().sum().backward()
    assert_gradients_are_finite(model)


@every_backbone
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4], ids=["zeros", "ones", "large"])
def test_a_constant_window_gives_finite_gradients(name, value):
    model, x = make(name), signal()
    x[..., 0] = value
    model(x).sum().backward()
    assert_gradients_are_finite(model)


@every_backbone
@pytest.mark.parametrize(
    ("window", "horizon", "out_features"),
    [("shortest", 1, 1), ("longest", 5, 2), (12, 3, 2), (12, 24, 1)],
    ids=["shortest-window", "longest-window", "short-horizon", "long-horizon"],
)
def test_windows_and_horizons_of_any_length(name, window, horizon, out_features):
    shortest, longest = case_of(name).windows
    window = {"shortest": shortest, "longest": longest or 24}.get(window, window)
    model, x = make(name, window=window, horizon=horizon, out_features=out_features), signal(window=window)
    x.requires_grad_()
    y = model(x)
    assert y.shape == (2, horizon, N, out_features)
    for step in range(horizon):  # every step of the window counts, for every step of the forecast
        (gradient,) = torch.autograd.grad(y[:, step].sum(), x, retain_graph=True)
        assert (gradient[..., 0] != 0).any(dim=2).all()


@every_backbone
def test_a_window_outside_what_the_backbone_can_read_is_named(name):
    shortest, longest = case_of(name).windows
    for window in [shortest - 1] + ([] if longest is None else [longest + 1]):
        with pytest.raises(InputError, match=rf"window: got {window}\b.*, expected "):
            make(name, window=window)


@every_backbone
def test_a_window_is_forecast_as_if_alone(name):
    """Whatever the others of its batch hold, and wherever it stands among them; when evaluated, not in BatchNorm."""
    model, x = with_random_norms(make(name)).eval(), signal(4)
    y = model(x)
    for b in range(4):
        torch.testing.assert_close(model(x[b : b + 1]), y[b : b + 1])
    torch.testing.assert_close(model(x.flip(0)), y.flip(0))
    x[1:, ..., 0] = torch.nan
    torch.testing.assert_close(model(x)[:1], y[:1])


@every_backbone
def test_permuting_all_that_belongs_to_a_node_permutes_the_forecast(name):
    case, A, order = case_of(name), random_graph(), torch.randperm(N)
    model, permuted = with_random_norms(make(name, A)).eval(), make(name, A[order][:, order]).eval()
    state = model.state_dict()
    for part, dim in case.per_node.items():
        of_nodes = [key for key in state if part in key]
        assert of_nodes, part
        state |= {key: state[key].index_select(dim, order) for key in of_nodes}
    permuted.load_state_dict(state)
    x = signal()
    expected = model(x)[:, :, order]
    torch.testing.assert_close(permuted(x[:, :, order]), expected)
    told_apart = case.graph == "required" or bool(case.per_node)
    assert torch.allclose(model(x[:, :, order]), expected) != told_apart


@every_backbone
def test_the_graph_plays_the_part_that_is_stated(name):
    model, other = make(name).eval(), make(name).eval()
    other.load_state_dict(model.state_dict())
    x = signal()
    assert torch.equal(other(x), model(x)) == (case_of(name).graph == "unused")


FORMS = {
    "numpy": lambda A: A.numpy(),
    "nested-lists": lambda A: A.tolist(),
    "sparse": lambda A: A.to_sparse(),
    "compressed-rows": lambda A: A.to_sparse_csr(),
    "integers": lambda A: A.int(),
    "part-of-a-computation": lambda A: A.requires_grad_() * 1.0,
}


@every_backbone
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_a_graph_may_come_in_any_form(name, form):
    A, x = undirected_binary(), signal()
    model, other = make(name, A).eval(), make(name, FORMS[form](A.clone())).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    assert not any(buffer.requires_grad for buffer in other.buffers())


@every_backbone
def test_gradcheck(name):
    model, x = make_tiny(name)
    parameters = trained(model)

    def run(x, *values):
        return torch.func.functional_call(model, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *parameters.values()), fast_mode=True)


@every_backbone
def test_compiles_forward_and_backward_in_one_graph(name):
    model, x = make_tiny(name, **({"layers": 1} if "layers" in own_arguments(name) else {}))
    compiled = torch.compile(model, fullgraph=case_of(name).traced, backend="aot_eager")
    y = model(x)
    y.square().sum().backward()
    gradients = {key: p.grad for key, p in trained(model).items()}
    model.zero_grad()
    compiled_y = compiled(x)
    compiled_y.square().sum().backward()
    torch.testing.assert_close(compiled_y, y)
    torch.testing.assert_close({key: p.grad for key, p in trained(model).items()}, gradients)


@every_backbone
def test_state_dict_copy_and_pickle_round_trip(name):
    A, x = random_graph(), signal()
    model, other = with_random_norms(make(name, A)).eval(), make(name, A).eval()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    for clone in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(clone(x), model(x))


@every_backbone
def test_the_state_is_what_is_learned(name):
    """Parameters and running statistics: the graph comes with the data."""
    model = make(name)
    norms = {f"{key}." for key, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    others = {key for key in model.state_dict() if not any(key.startswith(norm) for norm in norms)}
    assert others <= dict(model.named_parameters()).keys()


@every_backbone
def test_one_seed_gives_one_training_step(name):
    def step():
        torch.manual_seed(3)
        model = make(name)
        y = model(signal())
        y.square().sum().backward()
        return y, {key: p.grad for key, p in trained(model).items()}

    torch.testing.assert_close(step(), step(), rtol=0, atol=0)


@every_backbone
def test_drops_out_in_every_place_of_the_published_model(name, monkeypatch):
    places, dropout = [], F.dropout

    def remembered(x, p=0.5, training=True, inplace=False):
        if training and p == 0.25:
            places.append(list(x.shape))
        return dropout(x, p, training, inplace)

    monkeypatch.setattr(F, "dropout", remembered)
    make(name, **({"dropout": 0.25} if has_dropout(name) else {})).train()(signal())
    assert len(places) == case_of(name).dropouts, places


@every_backbone
def test_dropout_acts_while_training_only(name):
    changes = {"dropout": 0.5} if has_dropout(name) else {}
    model, x = make(name, **changes), signal()
    assert torch.equal(model(x), model(x)) != has_dropout(name)
    model.eval()
    assert torch.equal(model(x), model(x))


@every_backbone
def test_forecasts_without_gradients_as_with_them(name):
    """Some of torch's modules take another way then."""
    model, x = with_random_norms(make(name)).eval(), signal()
    y = model(x)
    assert y.requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(model(x), y)


@every_backbone
def test_reads_a_view_and_leaves_it_as_it_was(name):
    model, x = make(name).eval(), signal()
    strided = x.transpose(0, 2).contiguous().transpose(0, 2)
    before = strided.clone()
    torch.testing.assert_close(model(strided), model(x))
    assert torch.equal(strided, before)


@every_backbone
def test_single_precision_is_close_to_double(name):
    model, x = with_random_norms(make(name)).eval(), signal()
    expected = model(x)
    y = model.float()(x.float())  # the graph follows the model
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-4)


@every_backbone
def test_trains_in_bfloat16(name):
    model, x = make(name, steps_per_day=96).eval(), signal(steps_per_day=96)
    expected = model(x)
    y = model.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), expected, atol=0.05, rtol=0.05)
    y.square().sum().backward()
    assert_gradients_are_finite(model)


@every_backbone
def test_trains_under_autocast(name):
    model, x = make(name).float().eval(), signal().float()
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    torch.testing.assert_close(y.float(), expected, atol=0.05, rtol=0.05)
    y.float().square().sum().backward()
    assert_gradients_are_finite(model)


@every_backbone
@pytest.mark.parametrize("value", [0, -12, 1.5, True], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_a_size_that_is_none_is_named(name, size, value):
    with pytest.raises(InputError, match=rf"{size}: got {re.escape(str(value))}, expected an integer of at least 1"):
        make(name, torch.ones(N, N), **{size: value})


def out_of_range(default: Any) -> list[Any]:
    """Values that no argument with such a default can have."""
    if isinstance(default, bool):
        return []
    if isinstance(default, tuple):
        return [3, default[:-1], (*default, 2), (0, *default[1:]), (*default[:-1], 1.5)]
    return [0, -1, 1.5] if isinstance(default, int) else [-0.1, 1.0, 2]  # a probability


@every_backbone
def test_own_arguments_out_of_range_are_named(name):
    for argument, default in own_arguments(name).items():
        for value in out_of_range(default):
            with pytest.raises(InputError, match=rf"^{argument}(\[\d\])?: got .*, expected "):
                make(name, **{argument: value})


@pytest.mark.parametrize(
    ("name", "changes"), [(name, changes) for name, case in CASES.items() for changes in case.rejects], ids=str
)
def test_arguments_that_do_not_fit_each_other_are_named(name, changes):
    with pytest.raises(InputError, match=rf"^({'|'.join(changes)}): got .*, expected "):
        make(name, **changes)


@every_backbone
def test_a_graph_that_is_none_is_named(name):
    kind = case_of(name).graph
    wrong = {
        r"adjacency: got shape \[6, 5\], expected \[6, 6\]": torch.ones(N, N - 1),
        r"adjacency: got shape \[5, 5\], expected \[6, 6\]": torch.ones(N - 1, N - 1),
        r"adjacency: got negative or non-finite weights": -torch.ones(N, N),
        r"adjacency: got negative or non-finite weights, ": torch.full((N, N), torch.nan),
    }
    for message, A in wrong.items() if kind != "unused" else ():
        with pytest.raises(InputError, match=message):
            make(name, A)
    shared = {"num_nodes": N, "in_features": 3, "out_features": 1, "window": 12, "horizon": 4, "steps_per_day": 288}
    if kind == "required":
        with pytest.raises(InputError, match=rf"adjacency: got None, expected the graph \[6, 6\] that {name} reads"):
            build_backbone(name, **shared)
    else:
        assert build_backbone(name, **shared)(signal()).isfinite().all()


@every_backbone
def test_steps_of_the_day_are_asked_for_where_they_are_embedded(name):
    if not case_of(name).times:
        assert make(name, steps_per_day=None)(signal()).isfinite().all()
        return
    with pytest.raises(InputError, match=rf"steps_per_day: got None, expected how many .* {name} is to embed"):
        make(name, steps_per_day=None)
    with pytest.raises(InputError, match=r"steps_per_day: got 0, expected an integer of at least 1"):
        make(name, steps_per_day=0)


@every_backbone
def test_windows_that_do_not_fit_are_named(name):
    nodes = "N" if case_of(name).any_nodes else "6"
    expected = rf"expected \[B, 12, {nodes}, 3\]"
    wrong = {
        rf"x: got shape \[2, 11, 6, 3\], {expected}": signal(window=11),
        rf"x: got shape \[2, 12, 6, 4\], {expected}": signal(in_features=4),
        rf"x: got shape \[12, 6, 3\], {expected}": signal()[0],
        r"x: got dtype torch.float32, expected torch.float64 like the model": signal().float(),
        r"x: got a tensor on meta, expected cpu like the model": signal().to("meta"),
    }
    if not case_of(name).any_nodes:
        wrong[rf"x: got shape \[2, 12, 5, 3\], {expected}"] = signal(num_nodes=5)
    model = make(name)
    for message, x in wrong.items():
        with pytest.raises(InputError, match=message):
            model(x)
