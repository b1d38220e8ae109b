"""The matrix every backend of ``sk.nall`` passes: values, gradients, contracts of DESIGN."""

import itertools

import pytest
import torch
from nall_cases import CASES, GRADIENTS, Case, error

import stlora_kernels as sk
from stlora_kernels.ops import philox

FAST = [name for name in sk.available_backends("cpu") if name not in ("triton", "reference")]
BACKENDS = [*FAST, "reference"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def test_the_compiled_backend_is_there():
    """Without it this file would compare the reference with itself."""
    assert "cpu" in sk.available_backends("cpu"), sk.ops.dispatch.why_unavailable("cpu")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_gradients_are_as_exact_as_torch(case: Case, dtype, isa):
    truth = case.reference64(dtype)
    torchs = case.run("reference", case.tensors(dtype))
    ours = case.run("cpu", case.tensors(dtype))
    assert ours.keys() == truth.keys()
    for name, expected in truth.items():
        assert ours[name].dtype == dtype
        assert ours[name].shape == expected.shape
        assert error(ours[name], expected) <= 2 * error(torchs[name], expected) + 1e-5, name


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", [c for c in CASES if c.M > 60 or c.adapters], ids=str)
def test_any_number_of_threads_gives_the_gradients(case: Case, count, threads):
    # Large enough that several threads share one adapter: sizes times the threshold below which one thread works.
    case = Case(**{**case.__dict__, "M": case.M + 700, "leading": None})
    threads(count)
    truth, ours = case.reference64(torch.float64), case.run("cpu", case.tensors())
    for name, expected in truth.items():
        torch.testing.assert_close(ours[name], expected, msg=name)


@pytest.mark.parametrize("M", [5, 9, 12, 16])
def test_more_threads_than_units_are_dealt_the_rows_once(M, threads):
    case = Case(M, 3, 400, 400, 3)  # large enough that every thread is worth its start
    threads(8)
    truth, ours = case.reference64(torch.float64), case.run("cpu", case.tensors())
    for name, expected in truth.items():
        torch.testing.assert_close(ours[name], expected, msg=name)


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
def test_results_are_the_same_bits_from_run_to_run(dropout_p):
    case = Case(300, 7, 48, 40, 8, dropout_p=dropout_p, activation="relu")
    tensors = case.tensors(torch.float32)
    first = case.run("cpu", tensors)
    for _ in range(5):
        again = case.run("cpu", tensors)
        assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "case",
    [
        Case(3, 2, 4, 5, 2, activation="leaky_relu"),
        Case(3, 4, 5, 3, 2, adapters=2, bias=False),
        Case(2, 3, 6, 4, 2, dropout_p=0.4, activation="relu"),
        Case(20, 2, 3, 3, 1),
    ],
    ids=str,
)
def test_gradcheck_in_fp64(case: Case, backend):
    tensors = case.tensors()
    leaves = [tensors[name] for name in GRADIENTS if tensors[name] is not None]

    def call(*leaves):
        x, weight, *bias, A, B = leaves
        return sk.nall(
            x, weight, bias[0] if bias else None, A, B, case.alpha,
            dropout_p=case.dropout_p, seed=torch.tensor(11), activation=case.activation,
            node_index=tensors["node_index"], backend=backend,
        )  # fmt: skip

    assert torch.autograd.gradcheck(call, [leaf.requires_grad_() for leaf in leaves])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", [Case(80, 3, 10, 12, 4), Case(9, 3, 10, 12, 4, dropout_p=0.2)], ids=str)
def test_only_the_gradients_asked_for_are_computed_and_they_are_the_same(case: Case, backend):
    tensors = case.tensors()
    full = case.run(backend, tensors)
    for wanted in itertools.product([False, True], repeat=5):
        leaves = [tensors[name].detach().clone().requires_grad_(w) for name, w in zip(GRADIENTS, wanted, strict=True)]
        y = sk.nall(*leaves, case.alpha, dropout_p=case.dropout_p, seed=torch.tensor(2**40 + 7), backend=backend)
        assert y.requires_grad == any(wanted)
        if any(wanted):
            y.backward(tensors["grad"])
        for name, leaf, w in zip(GRADIENTS, leaves, wanted, strict=True):
            assert (leaf.grad is not None) == w
            if w:
                torch.testing.assert_close(leaf.grad, full[name], msg=f"{name} of {wanted}")


def _layouts(x):
    """The same values in memory of other layouts."""
    padded = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), float("nan"))
    padded[..., ::2] = x
    yield "every second feature", padded[..., ::2]
    yield "nodes first", x.transpose(0, -2).contiguous().transpose(0, -2)
    yield "features first", x.transpose(-1, 0).contiguous().transpose(-1, 0)
    yield "offset", torch.cat([x.new_full((1, *x.shape[1:]), float("nan")), x])[1:]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "case", [Case(30, 5, 12, 9, 3, activation="relu"), Case(30, 5, 12, 9, 3, leading=(5, 6))], ids=str
)
def test_any_strides_of_input_and_gradient(case: Case, backend):
    tensors = case.tensors()
    expected = case.run(backend, tensors)
    for name in ("x", "grad"):
        for layout, view in _layouts(tensors[name]):
            assert torch.equal(view, tensors[name])
            leaves = {k: view if k == name else tensors[k] for k in tensors}
            x = leaves["x"].detach().requires_grad_()
            parameters = [tensors[k].clone().requires_grad_() for k in GRADIENTS[1:]]
            y = sk.nall(x, *parameters, case.alpha, activation=case.activation, backend=backend)
            torch.testing.assert_close(y, expected["y"], msg=layout)
            y.backward(leaves["grad"])
            for k, leaf in zip(GRADIENTS, [x, *parameters], strict=True):
                torch.testing.assert_close(leaf.grad, expected[k], msg=f"{k}: {name} {layout}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("downstream", ["sum", "cat", "expand", "mean over nodes"])
def test_gradients_that_arrive_expanded_or_strided(downstream, backend):
    """What gradcheck and opcheck cannot see: autograd hands down gradients with zero or foreign strides."""
    ends = {
        "sum": lambda y: y.sum(),
        "cat": lambda y: (torch.cat([y, y * 2], dim=-1) ** 2).sum(),
        "expand": lambda y: y.expand(4, *y.shape).sum(),
        "mean over nodes": lambda y: (y.mean(dim=1) * torch.arange(y.shape[-1])).sum(),
    }
    case = Case(20, 6, 10, 7, 3)
    tensors = case.tensors()

    def gradients(backend):
        leaves = [tensors[name].clone().requires_grad_() for name in GRADIENTS]
        ends[downstream](sk.nall(*leaves, case.alpha, backend=backend)).backward()
        return [leaf.grad for leaf in leaves]

    for ours, expected in zip(gradients(backend), gradients("reference"), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("backend", FAST)
def test_expanded_inputs_and_factors(backend):
    case = Case(20, 6, 10, 7, 3)
    t = case.tensors()

    def run(backend):
        leaves = [
            t["x"][:1].clone(),
            t["weight"].clone(),
            t["bias"].clone(),
            t["A"][:1].clone(),
            t["B"][:, :, :1].clone(),
        ]
        x, weight, bias, A, B = (leaf.requires_grad_() for leaf in leaves)
        y = sk.nall(x.expand(20, 6, 10), weight, bias, A.expand(6, -1, -1), B.expand(-1, -1, 10), backend=backend)
        y.backward(t["grad"])
        return [y, *(leaf.grad for leaf in leaves)]

    for ours, expected in zip(run(backend), run("reference"), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_output_element_is_written(case: Case, backend, poison):
    for name, value in case.run(backend, case.tensors(torch.float32)).items():
        assert not value.isnan().any(), name


@pytest.mark.parametrize(("shape", "p"), [((5, 3, 7), 0.5), ((70, 3, 33), 0.1), ((4, 2, 130), 0.9), ((3, 3, 8), 1.0)])
@pytest.mark.parametrize("seed", [0, 1, 2**62 + 12345])
def test_dropout_masks_equal_the_contract_bit_for_bit(shape, p, seed, isa):
    _, N, I = shape  # noqa: E741
    # x = 1, W = 0 and an identity as the low-rank path: the output is the mask itself, scaled.
    identity = torch.eye(I).expand(N, I, I)
    y = sk.nall(
        torch.ones(shape), torch.zeros(I, I), None, identity, identity,
        dropout_p=p, seed=torch.tensor(seed), backend="cpu",
    )  # fmt: skip
    keep = philox.keep_mask(shape, p, torch.tensor(seed))
    assert torch.equal(y != 0, keep)
    assert torch.equal(y, philox.dropout(torch.ones(shape), p, torch.tensor(seed)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_torchs_seed_governs_the_dropout_seed(backend):
    t = Case(6, 4, 9, 5, 3).tensors(torch.float32)
    arguments = [t[name] for name in GRADIENTS]

    def draw():
        return sk.nall(*arguments, dropout_p=0.5, backend=backend)

    torch.manual_seed(5)
    first, second = draw(), draw()
    torch.manual_seed(5)
    assert torch.equal(draw(), first)
    assert not torch.equal(first, second)


def test_rows_beyond_two_to_the_31_elements_apart():
    """Offsets are 64-bit: three rows 2**30 floats apart; pages never touched take no memory."""
    t = Case(3, 2, 8, 5, 2).tensors(torch.float32)
    apart = torch.empty(2 * 2**30 + 16).as_strided((3, 2, 8), (2**30, 8, 1))
    apart.copy_(t["x"])
    arguments = [t[name] for name in GRADIENTS[1:]]
    y = sk.nall(apart, *arguments, backend="cpu")
    torch.testing.assert_close(y, sk.nall(t["x"], *arguments, backend="reference"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinities_that_relu_or_dropout_removes_leave_no_nan(backend):
    arguments = [torch.ones(1, 2), None, torch.zeros(1, 1, 1), torch.zeros(1, 1, 2)]
    x = torch.full((1, 1, 2), -3e38, requires_grad=True)
    y = sk.nall(x, *arguments, activation="relu", backend=backend)
    assert y.item() == 0
    y.backward(torch.full((1, 1, 1), float("inf")))
    assert torch.equal(x.grad, torch.zeros(1, 1, 2))
    x = torch.tensor([[[float("inf"), 1.0]]])
    dropped = sk.nall(
        x, torch.zeros(1, 2), None, torch.ones(1, 1, 1), torch.ones(1, 1, 2), dropout_p=1.0, backend="cpu"
    )
    assert dropped.isnan().all(), "W = 0 times the infinity is NaN in torch too; the dropped path must add none"


@pytest.mark.parametrize("size", [dict(N=0), dict(I=0), dict(M=0, N=0)], ids=str)
def test_sizes_of_zero(size):
    case = Case(**{**dict(M=3, N=2, I=4, O=5, r=2), **size})
    expected, ours = case.run("reference", case.tensors()) if case.I else None, case.run("cpu", case.tensors())
    for name, value in (expected or {}).items():
        torch.testing.assert_close(ours[name], value)
    assert ours["y"].shape == (case.M, case.N, case.O)


@pytest.mark.parametrize(
    "value", [0.0, 1.0, -2.5, 65504.0, 65519.0, 65520.0, 1e6, 6e-5, 6e-8, 2.9e-8, 1e-10, float("inf")]
)
def test_half_precision_rounds_as_torch_does(value):
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.tensor([[[value, -value]]], dtype=torch.float32).to(dtype).reshape(1, 1, 2)
        eye = torch.eye(2, dtype=dtype)
        if not torch.isfinite(x).all():
            continue
        y = sk.nall(x, eye, None, torch.zeros(1, 2, 1, dtype=dtype), torch.zeros(1, 1, 2, dtype=dtype), backend="cpu")
        assert torch.equal(y, x)
    scale = torch.tensor([[1.0009765625]], dtype=torch.float16)  # the product must round to nearest, ties to even
    xs = torch.linspace(-70000, 70000, 1001).reshape(-1, 1, 1).to(torch.float16)
    xs = xs[torch.isfinite(xs).flatten()]
    y = sk.nall(xs, scale, None, *[torch.zeros(1, 1, 1, dtype=torch.float16)] * 2, backend="cpu")
    assert torch.equal(y, (xs.float() * scale.float()).half())
