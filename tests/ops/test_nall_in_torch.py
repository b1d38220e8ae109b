"""``sk.nall`` as an operation of torch: operator checks, compile, autocast, transforms, and what it refuses."""

import pytest
import torch
from nall_cases import CASES, GRADIENTS, Case

import stlora_kernels as sk

FAST = [name for name in sk.available_backends("cpu") if name not in ("triton", "reference")]
BACKENDS = [*FAST, "reference"]


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", [CASES[1], CASES[4], CASES[10], CASES[13]], ids=str)
def test_opcheck(case: Case, backend):
    t = case.tensors(torch.float32)
    options = (case.alpha, case.dropout_p, case.activation or "none", 0.1, backend)
    inputs = (t["x"], t["weight"], t["bias"], t["A"], t["B"], torch.tensor(3), t["node_index"])
    torch.library.opcheck(torch.ops.stlora.nall, (*inputs, *options))
    y = torch.ops.stlora.nall(*inputs, *options)
    needs = [True, False, True, True, False]
    torch.library.opcheck(torch.ops.stlora.nall_backward, (t["grad"], y, needs, *inputs, *options))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    "case", [Case(9, 3, 10, 12, 4), Case(9, 3, 10, 12, 4, dropout_p=0.3, activation="relu", adapters=2)], ids=str
)
def test_torch_compile_fullgraph(case: Case, dynamic, backend):
    t = case.tensors(torch.float32)

    def call(x, weight, bias, A, B):
        y = sk.nall(
            x, weight, bias, A, B, case.alpha, dropout_p=case.dropout_p, seed=torch.tensor(2**40 + 7),
            activation=case.activation, node_index=t["node_index"], backend=backend,
        )  # fmt: skip
        return y * 2

    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for rows in (9, 4) if dynamic else (9,):
        leaves = [t[name].clone().requires_grad_() for name in GRADIENTS]
        y = compiled(leaves[0][:rows], *leaves[1:])
        expected_leaves = [t[name].clone().requires_grad_() for name in GRADIENTS]
        expected = call(expected_leaves[0][:rows], *expected_leaves[1:])
        torch.testing.assert_close(y, expected)
        y.sum().backward()
        expected.sum().backward()
        for ours, theirs in zip(leaves, expected_leaves, strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.slow
def test_torch_compile_with_inductor():
    case = Case(9, 3, 10, 12, 4, activation="relu")
    tensors = case.tensors(torch.float32)
    arguments = [tensors[name] for name in GRADIENTS]
    torch.compiler.reset()
    compiled = torch.compile(lambda *a: sk.nall(*a, activation="relu", backend="cpu").sigmoid(), fullgraph=True)
    torch.testing.assert_close(
        compiled(*arguments), sk.nall(*arguments, activation="relu", backend="reference").sigmoid()
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_computes_in_its_dtype(backend):
    t = Case(8, 3, 10, 12, 4).tensors(torch.float32)
    arguments = [t[name].requires_grad_() for name in GRADIENTS]
    with torch.autocast("cpu", torch.bfloat16):
        y = sk.nall(*arguments, backend=backend)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert all(leaf.grad.dtype == torch.float32 for leaf in arguments)
    torch.testing.assert_close(y.float(), sk.nall(*arguments, backend="reference"), atol=0.2, rtol=0.05)


def test_second_derivatives_are_refused():
    t = Case(3, 2, 4, 5, 2).tensors()
    x = t["x"].requires_grad_()
    (grad,) = torch.autograd.grad(
        sk.nall(x, t["weight"], None, t["A"], t["B"], backend="cpu").square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


BAD = {
    "x": (dict(x=torch.ones(4)), r"x: got shape \[4\], expected \[\*, N, I\]"),
    "integers": (dict(x=torch.ones(2, 3, 4, dtype=torch.int32)), "x: got dtype torch.int32, expected a floating-point"),
    "no tensor": (dict(weight=[[1.0]]), "weight: got a list, expected a tensor"),
    "sparse": (dict(A=torch.ones(3, 5, 2).to_sparse()), "A: got layout torch.sparse_coo, expected torch.strided"),
    "alpha tensor": (dict(alpha=torch.tensor(2.0)), "alpha: got a Tensor, expected a number"),
    "alpha text": (dict(alpha="a"), "alpha: got 'a', expected a number"),
    "alpha beyond all floats": (dict(alpha=10**400), "alpha: got 1000"),
    "slope NaN": (dict(negative_slope=float("nan")), "negative_slope: got nan"),
    "seed number": (dict(seed=3), "seed: got a int, expected a tensor"),
    "weight": (dict(weight=torch.ones(5, 3)), r"weight: got shape \[5, 3\], expected \[O, 4\]"),
    "bias": (dict(bias=torch.ones(4)), r"bias: got shape \[4\], expected \[5\]"),
    "A": (dict(A=torch.ones(3, 4, 2)), r"A: got shape \[3, 4, 2\], expected \[adapters, 5, rank\]"),
    "rank 0": (dict(A=torch.ones(3, 5, 0)), "A: got shape"),
    "B": (dict(B=torch.ones(3, 3, 4)), r"B: got shape \[3, 3, 4\], expected \[3, 2, 4\]"),
    "adapters": (dict(A=torch.ones(2, 5, 2), B=torch.ones(2, 2, 4)), "A: got 2 adapters for the 3 nodes"),
    "dtype": (dict(A=torch.ones(3, 5, 2, dtype=torch.float64)), "A: got torch.float64 on cpu, expected torch.float32"),
    "device": (
        dict(bias=torch.ones(5, device="meta")),
        "bias: got torch.float32 on meta, expected torch.float32 on cpu",
    ),
    "dropout_p": (dict(dropout_p=1.5), r"dropout_p: got 1.5, expected a probability in \[0, 1\]"),
    "dropout_p NaN": (dict(dropout_p=float("nan")), "dropout_p: got nan"),
    "seed": (dict(seed=torch.tensor(1.0)), "seed: got torch.float32"),
    "activation": (dict(activation="gelu"), "activation: got 'gelu', expected None, 'relu' or 'leaky_relu'"),
    "slope": (
        dict(activation="leaky_relu", negative_slope=-1.0),
        "negative_slope: got -1.0, expected a number of at least 0",
    ),
    "node_index shape": (
        dict(node_index=torch.tensor([0, 1])),
        r"node_index: got torch.int64 \[2\], expected int64 \[3\]",
    ),
    "node_index dtype": (dict(node_index=torch.tensor([0.0, 1.0, 2.0])), "node_index: got torch.float32"),
    "node_index high": (
        dict(node_index=torch.tensor([0, 3, 1])),
        r"node_index: got 3.*, expected an adapter in \[0, 3\)",
    ),
    "node_index low": (dict(node_index=torch.tensor([-1, 0, 1])), "node_index: got -1"),
    "backend": (dict(backend="gpu"), "backend: got 'gpu', expected one of"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name, backend):
    change, message = BAD[name]
    arguments = dict(
        x=torch.ones(2, 3, 4), weight=torch.ones(5, 4), bias=None, A=torch.ones(3, 5, 2), B=torch.ones(3, 2, 4)
    )
    with pytest.raises(ValueError, match=message) as caught:
        sk.nall(**{"backend": backend, **arguments, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_func_grad(backend):
    t = Case(3, 2, 4, 5, 2).tensors()
    arguments = [t[name] for name in GRADIENTS[1:]]
    grad = torch.func.grad(lambda x: sk.nall(x, *arguments, backend=backend).square().sum())(t["x"])
    x = t["x"].clone().requires_grad_()
    sk.nall(x, *arguments, backend="reference").square().sum().backward()
    torch.testing.assert_close(grad, x.grad)


def test_meta_tensors_give_shapes():
    assert sk.FusedNALL(3, 5, 4, device="meta")(torch.empty(2, 3, 5, device="meta")).shape == (2, 3, 4)
