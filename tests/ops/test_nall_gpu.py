"""NALL on a GPU where there is one, else in Triton's interpreter and on the emulator of CUDA."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_cases import DEVICE, DTYPES, check_nall, launches, on_device
from nall_cases import CASES, GRADIENTS, Case

import stlora_kernels as sk
from stlora_kernels.ops import inputs, philox


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_gradients_are_as_exact_as_torch(case: Case, dtype, backend):
    check_nall(case, dtype, backend)


@pytest.mark.parametrize("features", [16, 18])  # rows that are whole draws of four words, and rows that are not
def test_the_mask_is_the_contracts(features, backend):
    x = torch.ones(70, 3, features, device=DEVICE, requires_grad=True)
    A, B = torch.ones(3, 5, 1, device=DEVICE), torch.ones(3, 1, features, device=DEVICE)
    seed = torch.tensor(2**40 + 7)
    weight = torch.zeros(5, features, device=DEVICE)
    sk.nall(x, weight, None, A, B, dropout_p=0.5, seed=seed, backend=backend).sum().backward()
    assert torch.equal(x.grad.cpu() != 0, philox.keep_mask(x.shape, 0.5, seed))


def test_shared_sums_are_the_same_bits_from_run_to_run(backend):
    case = Case(200, 3, 40, 24, 4, adapters=2)
    tensors = on_device(case.tensors(torch.float32))
    first, again = case.run(backend, tensors), case.run(backend, tensors)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("needed", [*GRADIENTS, "none of the factors"])
def test_only_the_gradients_asked_for_are_computed_and_they_are_the_same(needed, backend):
    case = Case(70, 3, 20, 24, 4, activation="leaky_relu")
    tensors = on_device(case.tensors(torch.float32))
    full = case.run(backend, tensors)
    wanted = [n for n in GRADIENTS if n == needed or (needed == "none of the factors" and n not in ("A", "B"))]
    leaves = [tensors[name].detach().clone().requires_grad_(name in wanted) for name in GRADIENTS]
    y = sk.nall(*leaves, case.alpha, activation=case.activation, backend=backend)
    y.backward(tensors["grad"])
    for name, leaf in zip(GRADIENTS, leaves, strict=True):
        if name in wanted:
            assert torch.equal(leaf.grad, full[name])
        else:
            assert leaf.grad is None


def test_any_strides_of_input_gradient_and_factors(backend):
    case = Case(20, 6, 12, 10, 3)
    tensors = on_device(case.tensors(torch.float32))
    expected = case.run(backend, tensors)
    apart = tensors | {n: tensors[n].transpose(0, 1).contiguous().transpose(0, 1) for n in ("x", "grad")}
    apart["A"] = tensors["A"].mT.contiguous().mT
    for name, value in case.run(backend, apart).items():
        torch.testing.assert_close(value, expected[name])
    every_other = torch.arange(5, -1, -1, device=DEVICE).repeat_interleave(2)[::2]
    for apart in ({"bias": tensors["bias"][:1].expand(10)}, {"node_index": every_other}):
        torch.testing.assert_close(*(case.call(name, tensors | apart) for name in (backend, "reference")))
    ours, theirs = (case.run(name, tensors | {"node_index": every_other}) for name in (backend, "reference"))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)
    y = case.call(backend, tensors | {"x": tensors["x"][:, :1].expand(-1, 6, -1)})
    torch.testing.assert_close(y, case.call("reference", tensors | {"x": tensors["x"][:, :1].expand(-1, 6, -1)}))


def test_a_node_index_is_looked_at_once_until_it_is_written_to(monkeypatch, backend):
    case = Case(5, 4, 6, 5, 2, adapters=3)
    tensors = on_device(case.tensors(torch.float32))
    looks, check_range = [], inputs.check_range
    monkeypatch.setattr(inputs, "check_range", lambda *a: looks.append(1) or check_range(*a))
    case.run(backend, tensors)
    case.run(backend, tensors)
    assert len(looks) == 1
    tensors["node_index"][0] = (tensors["node_index"][0] + 1) % 3
    ours = case.run(backend, tensors)
    assert len(looks) == 2
    for name, value in case.run("reference", tensors).items():
        torch.testing.assert_close(ours[name], value)
    tensors["node_index"].data.copy_(torch.tensor([2, 2, 0, 1]))  # no version of a tensor tells of this
    ours = case.run(backend, tensors)
    for name, value in case.run("reference", tensors).items():
        torch.testing.assert_close(ours[name], value)
    tensors["node_index"][1] = 3
    with pytest.raises(ValueError, match=r"node_index: got 3, expected an adapter in \[0, 3\)"):
        case.call(backend, tensors)
    with torch.inference_mode():
        inside = {name: t.clone() for name, t in on_device(case.tensors(torch.float32)).items()}
        torch.testing.assert_close(case.call(backend, inside), case.call("reference", inside))


@pytest.mark.parametrize("setting", ["fp32_precision", "allow_tf32"])
def test_either_way_to_allow_tf32_is_understood(setting):
    """torch refuses to be asked in the old way once it was told in the new; it is told in a process of its own."""
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[1])]!r}
import torch
from gpu_cases import check_nall, on_device, start
from nall_cases import Case, error
from stlora_kernels.ops import gpu
case = Case(5, 3, 70, 9, 2)
truth, tensors = case.reference64(torch.float32), on_device(case.tensors(torch.float32))
name = start("cuda", 0)
print(error(case.run(name, tensors)["y"].cpu(), truth["y"]) < 1e-5, gpu.may_use_tf32(tensors["x"]))
torch.backends.cuda.matmul.{setting} = {{"fp32_precision": "tf32", "allow_tf32": True}}["{setting}"]
print(1e-5 < error(case.run(name, tensors)["y"].cpu(), truth["y"]) < 1e-2)
print(gpu.may_use_tf32(tensors["x"]), gpu.may_use_tf32(tensors["x"].half()))
check_nall(case, torch.float16, "triton")
"""
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if DEVICE == "cpu" else {})
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout == "True False\nTrue\nTrue False\n", result.stderr


def test_a_bias_where_there_are_no_features(monkeypatch, backend):
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(float("nan")))
    x, weight, bias = torch.ones(3, 2, 0), torch.ones(4, 0), torch.ones(4)
    x, weight, bias, A, B = on_device(
        dict(enumerate((x, weight, bias, torch.ones(2, 4, 1), torch.ones(2, 1, 0))))
    ).values()
    y = sk.nall(x, weight, bias.requires_grad_(), A, B, backend=backend)
    y.sum().backward()
    assert torch.equal(y, torch.ones_like(y))
    assert torch.equal(bias.grad, torch.full_like(bias, 6))


@pytest.mark.parametrize("alpha", [1e5, -3e4])
def test_half_precision_overflows_no_sooner_than_torch(alpha, backend):
    """alpha times the low-rank code is beyond fp16, what it comes to is not."""
    case = Case(4, 2, 12, 10, 3, alpha=alpha)
    tensors = on_device(case.tensors(torch.float16))
    tensors["A"] = tensors["A"] / 2**13
    ours, expected = case.run(backend, tensors), case.run("reference", tensors)
    for name, value in expected.items():
        finite = value.isfinite()
        torch.testing.assert_close(ours[name][finite], value[finite], atol=0.1, rtol=0.05)
    assert ours["y"].isfinite().all()


def test_offsets_beyond_32_bits(backend):
    """Rows 2^30 elements apart: every stride fits 32 bits, the last row's offset does not."""
    case = Case(4, 2, 16, 8, 3)
    tensors = on_device(case.tensors(torch.float16))
    far = torch.empty(3 * 2**30 + 32, dtype=torch.float16, device=DEVICE).as_strided((4, 2, 16), (2**30, 16, 1))
    far.copy_(tensors["x"])
    results = []
    for x in (far, tensors["x"]):
        weight, A, B = (tensors[name].clone().requires_grad_() for name in ("weight", "A", "B"))
        y = case.call(backend, tensors | {"x": x, "weight": weight, "A": A, "B": B})
        results.append((y, *torch.autograd.grad(y, (weight, A, B), tensors["grad"])))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_one_launch_forward_and_one_backward(backend):
    case = Case(70, 3, 100, 90, 4, dropout_p=0.2)
    with launches(backend) as launched:
        case.run(backend, on_device(case.tensors(torch.float32)))
    assert len(launched) == 2


def test_what_is_not_covered_is_refused_with_the_reason(backend):
    x, weight = torch.ones(2, 3, 4, device=DEVICE), torch.ones(5, 4, device=DEVICE)
    A, B = torch.ones(3, 5, 129, device=DEVICE), torch.ones(3, 129, 4, device=DEVICE)
    with pytest.raises(ValueError, match="rank 129 is beyond 128"):
        sk.nall(x, weight, None, A, B, backend=backend)
    doubles = [t.double() for t in (x, weight, A[..., :2], B[:, :2])]
    with pytest.raises(ValueError, match=r"dtype torch.float64 has no .* kernel"):
        sk.nall(*doubles[:2], None, *doubles[2:], backend=backend)
