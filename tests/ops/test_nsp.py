"""The matrix every backend of ``sk.nsp_layer`` and ``sk.nsp_stack`` passes."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from nall_cases import error
from nsp_cases import STACKS, Stack

import stlora_kernels as sk
from stlora_kernels.ops import philox

FAST = [name for name in sk.available_backends("cpu") if name not in ("triton", "reference")]
BACKENDS = [*FAST, "reference"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def test_the_reference_is_the_formula_layer_by_layer():
    case = Stack(5, 3, 7, 2, 3, dropout_p=0.4)
    t = case.tensors()
    h = t["h"]
    for layer in range(3):
        normal = h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt() * t[f"norm_weight{layer}"]
        keep = philox.keep_mask(h.shape, 0.4, torch.tensor(2**40 + 7), philox.STREAM_SIGMA, layer)
        s = torch.where(normal > 0, normal, 0.1 * normal) * keep / 0.6
        adapted = t[f"weight{layer}"] + 0.7 * t[f"A{layer}"] @ t[f"B{layer}"]  # [N, D, D]
        h = h + torch.einsum("mni,noi->mno", s, adapted) + t[f"bias{layer}"]
    torch.testing.assert_close(case.call("reference", t), h)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", STACKS, ids=str)
def test_output_and_gradients_are_as_exact_as_torch(case: Stack, dtype, isa):
    truth = case.reference64(dtype)
    torchs = case.run("reference", case.tensors(dtype))
    ours = case.run("cpu", case.tensors(dtype))
    assert ours.keys() == truth.keys()
    for name, expected in truth.items():
        assert ours[name].dtype == dtype
        assert error(ours[name], expected) <= 2 * error(torchs[name], expected) + 1e-5, name


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", [STACKS[5], STACKS[7], Stack(900, 3, 24, 4, 2, dropout_p=0.2, adapters=2)], ids=str)
def test_any_number_of_threads_gives_the_gradients(case: Stack, count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        truth, ours, again = case.reference64(torch.float64), *(case.run("cpu", case.tensors()) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    for name, expected in truth.items():
        torch.testing.assert_close(ours[name], expected, msg=name)
        assert torch.equal(ours[name], again[name]), "the same bits from run to run"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "case",
    [Stack(3, 2, 4, 2, 2), Stack(2, 4, 5, 2, 2, adapters=2, dropout_p=0.3), Stack(2, 2, 3, 1, 1, bias=False)],
    ids=str,
)
def test_gradcheck_in_fp64(case: Stack, backend):
    tensors = case.tensors()
    leaves = {name: tensors[name].requires_grad_() for name in case.leaves()}
    call = lambda *values: case.call(backend, tensors | dict(zip(leaves, values, strict=True)))  # noqa: E731
    assert torch.autograd.gradcheck(call, list(leaves.values()))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", [STACKS[1], STACKS[3], STACKS[7]], ids=str)
def test_opcheck(case: Stack, backend):
    t = case.tensors(torch.float32)
    parameters = [
        [t[f"{name}{layer}"] for layer in range(case.L)] for name in ("norm_weight", "weight", "bias", "A", "B")
    ]
    problem = (t["h"], *parameters, torch.tensor(3), t.get("node_index"), 0.7, 1e-6, 0.1, case.dropout_p, backend)
    torch.library.opcheck(torch.ops.stlora.nsp_stack, (problem[0], True, *problem[1:]))
    _, saved = torch.ops.stlora.nsp_stack(problem[0], True, *problem[1:])
    needs = [i % 3 != 1 for i in range(1 + 5 * case.L)]
    torch.library.opcheck(torch.ops.stlora.nsp_stack_backward, (t["grad"], saved, needs, *problem))


@pytest.mark.parametrize("backend", FAST)
def test_only_the_gradients_asked_for_are_computed_and_they_are_the_same(backend):
    case = Stack(70, 3, 10, 4, 2, dropout_p=0.2)
    tensors, full = case.tensors(), case.run(backend, case.tensors())
    names = case.leaves()
    picks = [{name} for name in names] + [set(pair) for pair in itertools.combinations(names, 2)] + [set(names[1:])]
    for wanted in picks:
        leaves = {name: tensors[name].detach().clone().requires_grad_(name in wanted) for name in names}
        case.call(backend, tensors | leaves).backward(tensors["grad"])
        for name, leaf in leaves.items():
            assert (leaf.grad is not None) == (name in wanted)
            if name in wanted:
                torch.testing.assert_close(leaf.grad, full[name], msg=f"{name} of {wanted}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_strides_and_expanded_gradients(backend):
    case = Stack(30, 5, 12, 3, 2)
    tensors = case.tensors()
    expected = case.run("reference", tensors)
    tensors["h"] = tensors["h"].transpose(0, 2).contiguous().transpose(0, 2)
    for name, value in case.run(backend, tensors).items():
        torch.testing.assert_close(value, expected[name], msg=name)
    gradients = []
    for name in (backend, "reference"):
        h = tensors["h"].detach().clone().requires_grad_()
        case.call(name, tensors | {"h": h}).sum().backward()
        gradients.append(h.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", STACKS, ids=str)
def test_every_output_element_is_written(case: Stack, backend, poison):
    for name, value in case.run(backend, case.tensors(torch.float32)).items():
        assert not value.isnan().any(), name


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_dropout_masks_equal_the_contract_bit_for_bit(p, isa):
    # W = 0 and no adapter but the identity: what layer 1 adds is sigma itself, zero where it was dropped.
    M, N, D = 70, 3, 33
    identity = torch.eye(D).expand(N, D, D)
    h, zero, one = torch.rand(M, N, D) + 1, torch.zeros(D, D), torch.ones(D)
    off = torch.zeros(N, D, D)
    seed = torch.tensor(2**50 + 3)
    y = sk.nsp_stack(
        h, [one] * 2, [zero] * 2, None, [off, identity], [off, identity], dropout_p=p, seed=seed, backend="cpu"
    )
    assert torch.equal(y != h, philox.keep_mask(h.shape, p, seed, philox.STREAM_SIGMA, layer=1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_torch_compile_fullgraph(dynamic, backend):
    case = Stack(9, 3, 10, 4, 2, dropout_p=0.3)
    t = case.tensors(torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(
        lambda h, A: case.call(backend, t | {"h": h, "A0": A}) * 2, fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    for rows in (9, 4) if dynamic else (9,):
        results = []
        for call in (compiled, lambda h, A: case.call(backend, t | {"h": h, "A0": A}) * 2):
            h, A = t["h"].clone().requires_grad_(), t["A0"].clone().requires_grad_()
            y = call(h[:rows], A)
            y.sum().backward()
            results.append((y, h.grad, A.grad))
        for ours, expected in zip(*results, strict=True):
            torch.testing.assert_close(ours, expected)


def test_a_layer_is_a_stack_of_one():
    case = Stack(20, 4, 12, 3, 1)
    t = case.tensors()
    y = sk.nsp_layer(t["h"], t["norm_weight0"], t["weight0"], t["bias0"], t["A0"], t["B0"], 0.7)
    assert torch.equal(y, case.call("cpu", t))


def _trained(tensors):
    return [t.clone().requires_grad_() for t in tensors]


def test_nothing_is_kept_for_a_backward_pass_that_will_not_come():
    t = STACKS[3].tensors(torch.float32)
    parameters = [[t[f"{n}{i}"] for i in range(3)] for n in ("norm_weight", "weight", "bias", "A", "B")]
    options = (None, None, 0.7, 1e-6, 0.1, 0.0, "cpu")
    saved = []
    call = sk.ops.nsp.cpu.forward
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(sk.ops.nsp.cpu, "forward", lambda h, save, *rest: saved.append(save) or call(h, save, *rest))
        sk.nsp_stack(t["h"], *(_trained(p) for p in parameters), backend="cpu")
    assert saved == [False]
    for save, expected in ((True, 2 * t["h"].numel()), (False, 0)):
        _, saved = torch.ops.stlora.nsp_stack(t["h"], save, *parameters, *options)
        assert saved.numel() == expected, "what the docstring says"


def test_autocast_computes_in_its_dtype():
    t = Stack(8, 3, 10, 4, 2).tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = Stack(8, 3, 10, 4, 2).call(None, t)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), Stack(8, 3, 10, 4, 2).call("reference", t), atol=0.2, rtol=0.05)


BAD = {
    "no layer": (dict(weights=[]), "weights: got no layer"),
    "too few": (dict(As=[]), "As: got 0 tensors, expected 1, one per layer"),
    "h": (dict(h=torch.ones(4)), r"h: got shape \[4\], expected \[\*, N, I\]"),
    "weight": (
        dict(weights=[torch.ones(5, 4)], As=[torch.ones(3, 5, 2)], biases=None),
        r"weights\[0\]: got shape \[5, 4\]",
    ),
    "norm": (dict(norm_weights=[torch.ones(3)]), r"norm_weights\[0\]: got torch.float32 \[3\] on cpu, expected"),
    "B": (dict(Bs=[torch.ones(3, 3, 4)]), r"Bs\[0\]: got shape \[3, 3, 4\], expected \[3, 2, 4\] to fit As\[0\]"),
    "eps NaN": (dict(eps=float("nan")), "eps: got nan"),
    "alpha": (dict(alpha=torch.tensor(1.0)), "alpha: got a Tensor, expected a number"),
    "eps": (dict(eps=-1.0), "eps: got -1.0, expected a number of at least 0"),
    "slope": (dict(negative_slope=-1.0), "negative_slope: got -1.0"),
    "dropout": (dict(dropout_p=2.0), "dropout_p: got 2.0"),
    "node_index": (dict(node_index=torch.tensor([0, 1, 5])), "node_index: got 5"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name, backend):
    change, message = BAD[name]
    arguments = dict(
        h=torch.ones(2, 3, 4), norm_weights=[torch.ones(4)], weights=[torch.ones(4, 4)], biases=[torch.ones(4)],
        As=[torch.ones(3, 4, 2)], Bs=[torch.ones(3, 2, 4)],
    )  # fmt: skip
    with pytest.raises(ValueError, match=message) as caught:
        sk.nsp_stack(**{"backend": backend, **arguments, **change})
    assert "\n" not in str(caught.value)


def test_leaky_relu_and_norm_gradients_at_their_edges():
    """Zero rows (rms is sqrt(eps)) and exact zeros (the slope's side of the kink), as in torch."""
    case = Stack(4, 2, 6, 2, 2)
    tensors = case.tensors()
    tensors["h"][0] = 0
    tensors["h"][1, :, ::2] = 0
    expected = case.run("reference", tensors)
    for name, value in case.run("cpu", tensors).items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert torch.isfinite(F.rms_norm(tensors["h"], (6,))).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [dict(N=0), dict(M=0, N=0)], ids=str)
def test_sizes_of_zero(size, backend):
    case = Stack(**{**dict(M=3, N=2, D=4, r=2, L=2), **size})
    for name, value in case.run("reference", case.tensors()).items():
        torch.testing.assert_close(case.run(backend, case.tensors())[name], value)


def test_no_features_at_all():
    assert Stack(3, 2, 0, 2, 2).call("cpu", {k: t for k, t in _of_width_zero().items()}).shape == (3, 2, 0)


def _of_width_zero():
    tensors = {"h": torch.zeros(3, 2, 0)}
    for layer in range(2):
        tensors[f"norm_weight{layer}"], tensors[f"weight{layer}"] = torch.zeros(0), torch.zeros(0, 0)
        tensors[f"A{layer}"], tensors[f"B{layer}"] = torch.zeros(2, 0, 2), torch.zeros(2, 2, 0)
    return tensors
