"""What only a GPU can show of the Triton kernels: devices, streams, graphs, tf32, and tuning by the clock."""

import pytest
import torch
from nall_cases import Case
from nsp_cases import Stack
from triton_cases import on_device

import stlora_kernels as sk
from stlora_kernels.ops import dispatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(dispatch.why_unavailable("triton", "cuda") is not None, reason="no triton"),
]
WORK = [Case(200, 5, 48, 40, 8, dropout_p=0.1), Stack(200, 5, 64, 8, 3, dropout_p=0.1)]
HALF = torch.float16


def same(ours: dict, expected: dict) -> None:
    for name, value in expected.items():
        assert torch.equal(ours[name].cpu(), value.cpu()), name


@pytest.mark.parametrize("case", WORK, ids=str)
def test_the_second_gpu_while_the_first_is_current(case):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    tensors = on_device(case.tensors(HALF))
    second = {name: None if t is None else t.to("cuda:1") for name, t in tensors.items()}
    assert torch.cuda.current_device() == 0
    same(case.run("triton", second), case.run("triton", tensors))


@pytest.mark.parametrize("case", WORK, ids=str)
def test_a_side_stream_is_the_one_launched_on(case):
    """Behind a long wait on another stream, a launch on that stream sees what the wait's end has written."""
    tensors = on_device(case.tensors(HALF))
    expected = case.run("triton", tensors)
    name = "x" if "x" in tensors else "h"
    late = tensors | {name: torch.zeros_like(tensors[name])}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late[name].copy_(tensors[name])
        ours = case.run("triton", late)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    same(ours, expected)


@pytest.mark.parametrize("case", WORK, ids=str)
def test_a_cuda_graph_replays_forward_and_backward(case):
    tensors = on_device(case.tensors(HALF))
    expected = case.run("triton", tensors)
    leaves = {
        n: t.clone().requires_grad_() for n, t in tensors.items() if t is not None and n not in ("grad", "node_index")
    }

    def step() -> dict[str, torch.Tensor]:
        y = case.call("triton", tensors | leaves)
        gradients = torch.autograd.grad(y, list(leaves.values()), tensors["grad"])
        return {"y": y} | dict(zip(leaves, gradients, strict=True))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        for value in captured.values():
            value.detach().fill_(float("nan"))
        graph.replay()
        case.run("triton", tensors)  # between replays
        torch.cuda.synchronize()
        same({name: value.detach() for name, value in captured.items()}, expected)


def test_compile_with_cuda_graphs():
    """torch's graph trees allow no memory of theirs to be kept from call to call."""
    case = Stack(40, 3, 64, 4, 2)
    tensors = on_device(case.tensors(HALF))
    torch.compiler.reset()
    compiled = torch.compile(lambda h: case.call("triton", tensors | {"h": h}), mode="reduce-overhead")
    for _ in range(4):
        torch.compiler.cudagraph_mark_step_begin()
        h = tensors["h"].clone().requires_grad_()
        y = compiled(h)
        y.backward(tensors["grad"])
        expected = tensors["h"].clone().requires_grad_()
        case.call("triton", tensors | {"h": expected}).backward(tensors["grad"])
        torch.testing.assert_close(h.grad, expected.grad)


def test_tf32_follows_torchs_flag():
    case = Case(64, 4, 64, 64, 8)
    tensors, truth = on_device(case.tensors(torch.float32)), case.reference64(torch.float32)
    before = torch.backends.cuda.matmul.allow_tf32
    errors = []
    try:
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            errors.append((case.call("triton", tensors).cpu() - truth["y"]).abs().max().item())
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    exact, tf32 = errors
    assert exact < 1e-4 < tf32 < 0.1


@pytest.mark.parametrize("case", WORK, ids=str)
def test_tuning_changes_no_result(case, monkeypatch, caplog):
    tensors = on_device(case.tensors(HALF))
    expected = case.run("triton", tensors)
    monkeypatch.setenv("STLORA_TRITON_AUTOTUNE", "1")
    with caplog.at_level("DEBUG", "stlora_kernels"):
        tuned = case.run("triton", tensors)
    assert "triton: tuned" in caplog.text
    for name, value in expected.items():
        torch.testing.assert_close(tuned[name], value, atol=2e-2, rtol=2e-2)


def test_more_than_2_to_the_31_elements():
    M, N, D = 2**14 + 1, 2**11, 64
    free, _ = torch.cuda.mem_get_info()
    if free < 12 * 2**30:
        pytest.skip("needs 12 GiB of GPU memory")
    x = torch.ones(1, 1, D, device="cuda", dtype=HALF).expand(M, N, D).contiguous()
    A, B = torch.ones(N, 16, 1, device="cuda", dtype=HALF), torch.ones(N, 1, D, device="cuda", dtype=HALF)
    weight = torch.zeros(16, D, device="cuda", dtype=HALF)
    y = sk.nall(x, weight, None, A, B, 1 / D, backend="triton")
    assert bool((y == 1).all())
