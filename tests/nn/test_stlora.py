"""ST-LoRA, eq. (4): backbone, blocks and gate."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from stlora_kernels.errors import InputError
from stlora_kernels.nn.nall import FACTORS
from stlora_kernels.nn.stlora import HISTORY, STLoRA

B, T, N, F, OUT = 2, 4, 3, 3, 1


class LinearBackbone(nn.Module):
    """Every node's first feature over the window, linearly to its horizon, with dropout."""

    def __init__(self, horizon):
        super().__init__()
        self.map = nn.Linear(T, horizon)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.map(x[..., 0].transpose(1, 2))).transpose(1, 2).unsqueeze(-1)  # [B, H, N, 1]


def make(*, temporal="fold", dtype=torch.float64, trained=True, **options):
    """A small ST-LoRA in evaluation mode; ``trained`` moves its low-rank factors away from zero."""
    torch.manual_seed(0)
    horizon = T if temporal == "step" else 2
    options = {"hidden": 5, "layers": 2, "rank": 2, "temporal": temporal, **options}
    model = STLoRA(LinearBackbone(horizon), N, F, OUT, T, horizon, **options).to(dtype).eval()
    if trained:
        for name, p in model.named_parameters():
            if "lora" in name:
                nn.init.normal_(p)
    return model


def signal(*, batch=B, dtype=torch.float64):
    return torch.randn(batch, T, N, F, dtype=dtype)


temporal = pytest.mark.parametrize("temporal", ["fold", "step"])


@pytest.mark.parametrize("blocks", [1, 3], ids=["K1", "K3"])
@pytest.mark.parametrize("phi", [None, "relu"], ids=["identity", "relu"])
@pytest.mark.parametrize("history", HISTORY)
@temporal
def test_composes_backbone_blocks_and_gate_as_the_equation_says(temporal, history, phi, blocks):
    model = make(temporal=temporal, history=history, phi=phi, blocks=blocks)
    x = signal()
    y, gate = model(x, return_gate=True)

    act = torch.relu if phi == "relu" else lambda v: v
    base = model.backbone(x)
    Z = [base]
    for k, block in enumerate(model.blocks):
        reads_x = history == "every" or k > 0
        Z.append(block(act(x), act(Z[-1])) if reads_x else block(act(Z[-1])))
    mean = sum(Z[1:]) / blocks
    weight, bias = model.gate.weight, model.gate.bias
    if temporal == "fold":
        values = torch.cat([x.permute(0, 2, 1, 3).reshape(B, N, -1), mean.permute(0, 2, 1, 3).reshape(B, N, -1)], 2)
        R = torch.einsum("bnc,hc->bhn", values, weight) + bias[:, None]
        R = R.sigmoid().unsqueeze(-1)
    else:
        R = torch.einsum("btnc,oc->btno", torch.cat([x, mean], 3), weight).add(bias).sigmoid()

    assert y.shape == gate.shape == base.shape
    assert (gate > 0).all()
    assert (gate < 1).all()
    torch.testing.assert_close(gate, R)
    torch.testing.assert_close(y, R * base + (1 - R) * mean)
    assert torch.equal(model(x), y)


def test_the_papers_letter_shows_the_first_block_the_forecast_alone():
    model = make(history="from_second", phi="relu", blocks=2)
    assert [block.forecast_features for block in model.blocks] == [0, OUT]
    assert [(block.window, block.in_features) for block in model.blocks] == [(2, OUT), (T, F)]


@temporal
def test_gradcheck(temporal):
    model = make(temporal=temporal, hidden=2, layers=1, rank=1)
    x = signal(batch=1).requires_grad_()
    names = [name for name, _ in model.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x, True))

    assert torch.autograd.gradcheck(run, (x, *model.parameters()))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("batch", [1, 3], ids=["batch-of-one", "batch-of-3"])
def test_joint_training_gives_every_parameter_a_finite_gradient(batch, factor):
    model = make(factor=factor, blocks=2, dtype=torch.float32).train()
    model(signal(batch=batch, dtype=torch.float32)).square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


def test_a_new_adapter_treats_all_nodes_alike_and_learns_to_tell_them_apart():
    model = make(trained=False)
    same = signal()[:, :, :1].expand(-1, -1, N, -1)
    y = model(same)
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y))

    optimiser = torch.optim.SGD(model.adapter_parameters(), lr=0.1)
    target = torch.arange(N, dtype=y.dtype).view(1, 1, N, 1)
    for _ in range(2):
        optimiser.zero_grad()
        (model(same) - target).square().mean().backward()
        optimiser.step()
    y = model(same)
    assert all(not torch.allclose(y[:, :, a], y[:, :, b]) for a, b in itertools.combinations(range(N), 2))


class TestFrozen:
    def test_the_backbone_gets_no_gradient_and_the_adapter_does(self):
        model = make(frozen=True).train()
        model(signal()).sum().backward()
        assert all(p.grad is None and not p.requires_grad for p in model.backbone.parameters())
        assert all(p.grad is not None for p in model.adapter_parameters())

    def test_the_backbone_stays_in_eval_mode_with_its_dropout_off(self):
        model = make(frozen=True, dropout=0.0).train()
        assert model.training
        assert not any(m.training for m in model.backbone.modules())
        x = signal()
        assert torch.equal(model(x), model(x))

    def test_training_a_joint_model_does_reach_the_backbones_dropout(self):
        model = make(frozen=False, dropout=0.0).train()
        x = signal()
        assert not torch.equal(model(x), model(x))

    def test_gradients_still_reach_the_input_through_the_backbone(self):
        frozen, joint = make(frozen=True, trained=False, dropout=0.0), make(frozen=False, dropout=0.0)
        frozen.load_state_dict(joint.state_dict())
        values, gradients = signal(), []
        for model in (frozen.eval(), joint.eval()):
            x = values.clone().requires_grad_()
            model(x).square().sum().backward()
            gradients.append(x.grad)
        torch.testing.assert_close(*gradients)

    def test_forecasts_what_the_joint_model_does(self):
        frozen, joint = make(frozen=True, trained=False), make(frozen=False)
        frozen.load_state_dict(joint.state_dict())
        x = signal()
        assert torch.equal(frozen(x), joint(x))


def test_overhead_counts_what_the_backbone_does_not_own():
    model = make()
    backbone = sum(p.numel() for p in model.backbone.parameters())
    total = sum(p.numel() for p in model.parameters())
    assert model.num_backbone_parameters == backbone == (T + 1) * 2
    assert model.num_adapter_parameters == total - backbone
    assert model.overhead == (total - backbone) / backbone
    assert {id(p) for p in model.adapter_parameters()}.isdisjoint(id(p) for p in model.backbone.parameters())


def test_a_backbone_without_parameters_has_infinite_overhead():
    class LastValue(nn.Module):
        def forward(self, x):
            return x[:, -1:, :, :1].expand(-1, 2, -1, -1)

    model = STLoRA(LastValue(), N, F, OUT, T, 2)
    assert model.overhead == float("inf")
    assert model(signal(dtype=torch.float32)).shape == (B, 2, N, OUT)


@temporal
def test_fused_and_plain_share_state_and_numbers(temporal):
    fused, plain = make(temporal=temporal, blocks=2), make(temporal=temporal, blocks=2, fused=False, trained=False)
    plain.load_state_dict(fused.state_dict())
    x = signal()
    torch.testing.assert_close(fused(x), plain(x), rtol=1e-12, atol=1e-12)
    fused.load_state_dict(plain.state_dict())


def test_state_dict_copy_and_pickle_round_trip():
    model, other = make(blocks=2, frozen=True), make(blocks=2, frozen=True, trained=False)
    other.load_state_dict(model.state_dict())
    x = signal()
    for clone in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(clone(x), model(x))
        assert clone.frozen


def test_forward_leaves_nothing_behind_on_the_modules():
    model = make(blocks=2)
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    model(signal(), return_gate=True)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    tensors = [v for module in model.modules() for v in vars(module).values() if isinstance(v, torch.Tensor)]
    assert tensors == []


@pytest.mark.parametrize("frozen", [False, True], ids=["joint", "frozen"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_compiles_forward_and_backward_in_one_graph(fused, frozen):
    model = make(blocks=2, layers=1, fused=fused, frozen=frozen)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = signal()
    compiled(x).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model(x).sum().backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(gradients[name], p.grad)
    for got, expected in zip(compiled(x, return_gate=True), model(x, return_gate=True), strict=True):
        torch.testing.assert_close(got, expected)


def test_exports_with_any_batch_size():
    model = make(frozen=True)
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, (signal(),), dynamic_shapes={"x": {0: batch}})
    x = signal(batch=5)
    torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": "never"}, r"history: got 'never', expected 'every' or 'from_second'"),
        ({"phi": "tanh"}, r"phi: got 'tanh', expected None or 'relu'"),
        ({"blocks": 0}, r"blocks: got 0, expected an integer of at least 1"),
        ({"temporal": "sum"}, r"temporal: got 'sum', expected 'fold' or 'step'"),
        ({"temporal": "step"}, r"temporal: got 'step' with window 4 and horizon 2, expected .*equal"),
        ({"temporal": "step", "history": "from_second"}, r"temporal: got 'step' with window 4 and horizon 2"),
        ({"factor": "edge"}, r"factor: got 'edge', expected"),
        ({"rank": -2}, r"rank: got -2, expected"),
        ({"in_features": 0}, r"in_features: got 0, expected"),
        ({"dropout": -0.1}, r"dropout: got -0.1, expected"),
        ({"fused": False, "backend": "cpu"}, r"backend: got 'cpu' with fused=False"),
        ({"backbone": "stgcn"}, r"backbone: got a str, expected a torch.nn.Module"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(options, message):
    arguments = {"num_nodes": N, "in_features": F, "out_features": OUT, "window": T, "horizon": 2}
    with pytest.raises(InputError, match=message):
        STLoRA(**{"backbone": LinearBackbone(2), **arguments, **options})


def test_wrong_inputs_are_named():
    model = make()
    with pytest.raises(InputError, match=r"x: got shape \[2, 4, 2, 3\], expected \[B, 4, 3, 3\]"):
        model(signal()[:, :, :2])
    with pytest.raises(InputError, match=r"x: got dtype torch.float32, expected torch.float64"):
        model(signal().float())


def test_a_backbone_with_another_horizon_is_named():
    model = STLoRA(LinearBackbone(3), N, F, OUT, T, 2)
    with pytest.raises(InputError, match=r"backbone: its forecast has shape \[2, 3, 3, 1\], expected \[2, 2, 3, 1\]"):
        model(signal(dtype=torch.float32))
