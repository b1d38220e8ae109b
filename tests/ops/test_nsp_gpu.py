"""The NSP stack on a GPU where there is one, else in Triton's interpreter and on the emulator of CUDA."""

import pytest
import torch
from gpu_cases import DEVICE, DTYPES, check_nsp, launches, on_device
from nsp_cases import Stack

import stlora_kernels as sk
from stlora_kernels.ops import philox

# Rows that stay in registers and rows that do not (fp32, and 16 bits beyond 128 columns forward, 64 backward), rows
# beyond a tile of 64, columns that are whole chunks and columns that are not, ranks that differ, and sizes of one.
CASES = [
    Stack(1, 1, 1, 1, 1),
    Stack(5, 3, 7, 2, 1),
    Stack(64, 3, 16, 4, 2, bias=False),
    Stack(65, 2, 33, 5, 3, dropout_p=0.3),
    Stack(2, 5, 64, 16, 4, dropout_p=0.1),
    Stack(66, 1, 129, 4, 2, dropout_p=0.1),
    Stack(40, 9, 20, 4, 2, adapters=3),
    Stack(9, 6, 15, 3, 2, adapters=20, dropout_p=0.5),
    Stack(200, 1, 24, 3, 2),
    Stack(0, 3, 4, 2, 2),
    Stack(12, 4, 6, 2, 2, leading=(3, 4)),
    Stack(1, 4, 6, 2, 3, leading=()),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_gradients_are_as_exact_as_torch(case: Stack, dtype, backend):
    check_nsp(case, dtype, backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["wide", "narrow"])
@pytest.mark.parametrize("features", [16, 18])  # rows that are whole draws of four words, and rows that are not
def test_the_mask_is_the_contracts(features, dtype, backend):
    # W = 0 and no adapter but the identity: what layer 1 adds is sigma itself, zero where it was dropped.
    M, N, D = 66, 2, features
    identity = torch.eye(D).expand(N, D, D)
    h, zero, one, off = torch.rand(M, N, D) + 1, torch.zeros(D, D), torch.ones(D), torch.zeros(N, D, D)
    h, zero, one, off, identity = (t.to(DEVICE, dtype) for t in (h, zero, one, off, identity))
    seed = torch.tensor(2**50 + 3)
    y = sk.nsp_stack(
        h, [one] * 2, [zero] * 2, None, [off, identity], [off, identity], dropout_p=0.5, seed=seed, backend=backend
    )
    assert torch.equal((y != h).cpu(), philox.keep_mask(h.shape, 0.5, seed, philox.STREAM_SIGMA, layer=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["wide", "narrow"])
def test_the_same_bits_from_run_to_run(dtype, backend):
    case = Stack(100, 2, 24, 3, 2, dropout_p=0.2)
    tensors = on_device(case.tensors(dtype))
    first, again = case.run(backend, tensors), case.run(backend, tensors)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_only_the_gradients_asked_for_are_given_and_they_are_the_same(backend):
    case = Stack(40, 3, 20, 4, 2, dropout_p=0.2)
    tensors = on_device(case.tensors(torch.float32))
    full, names = case.run(backend, tensors), case.leaves()
    picks = [{"h"}, {"A1"}, {"norm_weight0"}, {"bias0", "B1"}, {"weight1", "h"}, set(names[1:])]
    for wanted in picks:
        leaves = {name: tensors[name].detach().clone().requires_grad_(name in wanted) for name in names}
        case.call(backend, tensors | leaves).backward(tensors["grad"])
        for name, leaf in leaves.items():
            assert (leaf.grad is not None) == (name in wanted)
            if name in wanted:
                torch.testing.assert_close(leaf.grad, full[name], msg=f"{name} of {wanted}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["wide", "narrow"])
def test_any_strides_and_expanded_gradients(dtype, backend):
    case = Stack(30, 6, 12, 3, 2)
    tensors = on_device(case.tensors(dtype))
    expected = case.run(backend, tensors)
    apart = tensors | {name: tensors[name].transpose(0, 2).contiguous().transpose(0, 2) for name in ("h", "grad")}
    index = torch.arange(6, device=DEVICE).repeat_interleave(2)[::2]  # every adapter of its own node, in strides of 2
    for changed in (apart, {**tensors, "node_index": index}):
        for name, value in case.run(backend, changed).items():
            torch.testing.assert_close(value, expected[name], msg=name)
    gradients = []
    for name in (backend, "reference"):
        h = tensors["h"].detach().clone().requires_grad_()
        case.call(name, tensors | {"h": h}).sum().backward()
        gradients.append(h.grad)
    torch.testing.assert_close(*gradients, atol=2e-2 if dtype == torch.float16 else 1e-5, rtol=1e-2)


@pytest.mark.parametrize("case", [CASES[3], CASES[7]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["wide", "narrow"])
def test_every_output_element_is_written(case: Stack, dtype, poison, backend):
    for name, value in case.run(backend, on_device(case.tensors(dtype))).items():
        assert not value.isnan().any(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["wide", "narrow"])
def test_offsets_beyond_32_bits(dtype, backend):
    """Rows 2^30 elements apart: every stride fits 32 bits, the last row's offset does not."""
    case = Stack(4, 2, 16, 3, 2)
    tensors = on_device(case.tensors(dtype))
    far = torch.empty(3 * 2**30 + 32, dtype=dtype, device=DEVICE).as_strided((4, 2, 16), (2**30, 16, 1))
    results = []
    for h in (far.copy_(tensors["h"]), tensors["h"]):
        A = tensors["A0"].clone().requires_grad_()
        y = case.call(backend, tensors | {"h": h, "A0": A})
        results.append((y, *torch.autograd.grad(y, A, tensors["grad"])))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("features", [16, 70, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_one_launch_forward_and_one_backward(dtype, features, backend):
    """Of the stack, however wide its rows."""
    case = Stack(3, 2, features, 2, 3, dropout_p=0.2)
    with launches(backend) as launched:
        case.run(backend, on_device(case.tensors(dtype)))
    assert len(launched) == 2


def test_nothing_is_kept_for_a_backward_pass_that_will_not_come(backend):
    case = Stack(3, 2, 16, 2, 3)
    t = on_device(case.tensors(torch.float32))
    parameters = [[t[f"{n}{i}"] for i in range(3)] for n in ("norm_weight", "weight", "bias", "A", "B")]
    for save, expected in ((True, 2 * t["h"].numel()), (False, 0)):
        y, saved = torch.ops.stlora.nsp_stack(t["h"], save, *parameters, None, None, 0.7, 1e-6, 0.1, 0.0, backend)
        assert saved.numel() == expected
        torch.testing.assert_close(y, case.call("reference", t))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_opcheck(direction, backend):
    case = Stack(9, 3, 20, 2, 2, dropout_p=0.3)
    t = on_device(case.tensors(torch.float32))
    parameters = [[t[f"{n}{i}"] for i in range(2)] for n in ("norm_weight", "weight", "bias", "A", "B")]
    problem = (t["h"], *parameters, torch.tensor(3), None, 0.7, 1e-6, 0.1, case.dropout_p, backend)
    if direction == "forward":
        torch.library.opcheck(torch.ops.stlora.nsp_stack, (problem[0], True, *problem[1:]))
    else:
        _, saved = torch.ops.stlora.nsp_stack(problem[0], True, *problem[1:])
        torch.library.opcheck(torch.ops.stlora.nsp_stack_backward, (t["grad"], saved, [True] * 11, *problem))


def test_torch_compile_fullgraph(backend):
    case = Stack(9, 3, 10, 2, 2, dropout_p=0.3)
    t = on_device(case.tensors(torch.float32))
    torch.compiler.reset()
    compiled = torch.compile(lambda h: case.call(backend, t | {"h": h}) * 2, fullgraph=True, backend="aot_eager")
    results = []
    for call in (compiled, lambda h: case.call(backend, t | {"h": h}) * 2):
        h = t["h"].clone().requires_grad_()
        y = call(h)
        y.sum().backward()
        results.append((y, h.grad))
    torch.testing.assert_close(*results)


def test_what_is_not_covered_is_refused_with_the_reason(backend):
    t = on_device(Stack(2, 3, 4, 2, 1).tensors(torch.float64))
    with pytest.raises(ValueError, match=r"dtype torch.float64 has no .* kernel"):
        Stack(2, 3, 4, 2, 1).call(backend, t)
    high = Stack(1, 2, 4, 128, 2)  # ranks 128 and 129
    with pytest.raises(ValueError, match="rank 129 is beyond 128"):
        high.call(backend, on_device(high.tensors(torch.float32)))
