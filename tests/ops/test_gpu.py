"""What only a GPU can show: devices, streams, graphs, tf32, tuning by the clock, and what NVIDIA's sanitizer finds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_cases import on_device
from nall_cases import Case
from nsp_cases import Stack

import stlora_kernels as sk
from stlora_kernels.ops import dispatch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
WORK = [Case(200, 5, 48, 40, 8, dropout_p=0.1), Stack(200, 5, 64, 8, 3, dropout_p=0.1)]
ODD = [
    Case(33, 3, 41, 23, 5, dropout_p=0.1),
    Stack(67, 5, 35, 3, 3, dropout_p=0.1),
    Case(131, 7, 65, 129, 17, activation="leaky_relu"),
    Stack(210, 2, 97, 9, 2, adapters=3),
]
HALF = torch.float16
# Small, and with edges in every direction. A Case and a Stack run the kernels forward and backward.
SANITIZED = """
import torch
from nall_cases import Case
from nsp_cases import Stack

for dtype in (torch.float32, torch.bfloat16, torch.float16):
    for case in (Case(37, 3, 40, 24, 5, dropout_p=0.1), Stack(37, 3, 40, 5, 2, dropout_p=0.1)):
        tensors = {name: None if t is None else t.cuda() for name, t in case.tensors(dtype).items()}
        case.run("cuda", tensors)
torch.cuda.synchronize()
"""


@pytest.fixture(params=["triton", "cuda"])
def backend(request):
    """Asked after only where a test runs, so that tests can be collected anywhere."""
    if (reason := dispatch.why_unavailable(request.param, "cuda")) is not None:
        pytest.skip(reason)
    return request.param


def same(ours: dict, expected: dict) -> None:
    for name, value in expected.items():
        assert torch.equal(ours[name].cpu(), value.cpu()), name


@pytest.mark.parametrize("case", WORK, ids=str)
def test_the_second_gpu_while_the_first_is_current(backend, case):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    tensors = on_device(case.tensors(HALF))
    second = {name: None if t is None else t.to("cuda:1") for name, t in tensors.items()}
    assert torch.cuda.current_device() == 0
    same(case.run(backend, second), case.run(backend, tensors))


@pytest.mark.parametrize("case", WORK, ids=str)
def test_a_side_stream_is_the_one_launched_on(backend, case):
    """Behind a long wait on another stream, a launch on that stream sees what the wait's end has written."""
    tensors = on_device(case.tensors(HALF))
    expected = case.run(backend, tensors)
    name = "x" if "x" in tensors else "h"
    late = tensors | {name: torch.zeros_like(tensors[name])}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late[name].copy_(tensors[name])
        ours = case.run(backend, late)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    same(ours, expected)


def test_two_streams_at_once_do_not_disturb_each_other(backend):
    """Both wait until all is queued, so that different layers run side by side: nothing may be shared unguarded."""
    tensors = [on_device(case.tensors(HALF)) for case in ODD]
    alone = [case.run(backend, given) for case, given in zip(ODD, tensors, strict=True)]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(500_000_000)
    together = []
    for turn in range(4):
        for i, case in enumerate(ODD):
            with torch.cuda.stream(streams[(i // 2 + turn) % 2]):
                together.append((case.run(backend, tensors[i]), alone[i]))
    torch.cuda.synchronize()
    for ours, expected in together:
        same(ours, expected)


@pytest.mark.parametrize("case", WORK, ids=str)
def test_a_cuda_graph_replays_forward_and_backward(backend, case):
    tensors = on_device(case.tensors(HALF))
    expected = case.run(backend, tensors)
    leaves = {
        n: t.clone().requires_grad_() for n, t in tensors.items() if t is not None and n not in ("grad", "node_index")
    }

    def step() -> dict[str, torch.Tensor]:
        y = case.call(backend, tensors | leaves)
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
        case.run(backend, tensors)  # between replays
        torch.cuda.synchronize()
        same({name: value.detach() for name, value in captured.items()}, expected)


def test_compile_with_cuda_graphs(backend):
    """torch's graph trees allow no memory of theirs to be kept from call to call."""
    case = Stack(40, 3, 64, 4, 2)
    tensors = on_device(case.tensors(HALF))
    torch.compiler.reset()
    compiled = torch.compile(lambda h: case.call(backend, tensors | {"h": h}), mode="reduce-overhead")
    for _ in range(4):
        torch.compiler.cudagraph_mark_step_begin()
        h = tensors["h"].clone().requires_grad_()
        y = compiled(h)
        y.backward(tensors["grad"])
        expected = tensors["h"].clone().requires_grad_()
        case.call(backend, tensors | {"h": expected}).backward(tensors["grad"])
        torch.testing.assert_close(h.grad, expected.grad)


def test_tf32_follows_torchs_flag(backend):
    case = Case(64, 4, 64, 64, 8)
    tensors, truth = on_device(case.tensors(torch.float32)), case.reference64(torch.float32)
    before = torch.backends.cuda.matmul.allow_tf32
    errors = []
    try:
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            errors.append((case.call(backend, tensors).cpu() - truth["y"]).abs().max().item())
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    exact, tf32 = errors
    assert exact < 1e-4 < tf32 < 0.1


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
@pytest.mark.parametrize("case", WORK, ids=str)
def test_tuning_changes_no_result(backend, case, monkeypatch, caplog):
    tensors = on_device(case.tensors(HALF))
    expected = case.run(backend, tensors)
    monkeypatch.setenv("STLORA_TRITON_AUTOTUNE", "1")
    with caplog.at_level("DEBUG", "stlora_kernels"):
        tuned = case.run(backend, tensors)
    assert "triton: tuned" in caplog.text
    for name, value in expected.items():
        torch.testing.assert_close(tuned[name], value, atol=2e-2, rtol=2e-2)


def test_more_than_2_to_the_31_elements(backend):
    M, N, D = 2**14 + 1, 2**11, 64
    free, _ = torch.cuda.mem_get_info()
    if free < 12 * 2**30:
        pytest.skip("needs 12 GiB of GPU memory")
    x = torch.ones(1, 1, D, device="cuda", dtype=HALF).expand(M, N, D).contiguous()
    A, B = torch.ones(N, 16, 1, device="cuda", dtype=HALF), torch.ones(N, 1, D, device="cuda", dtype=HALF)
    weight = torch.zeros(16, D, device="cuda", dtype=HALF)
    y = sk.nall(x, weight, None, A, B, 1 / D, backend=backend)
    assert bool((y == 1).all())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cuda"], indirect=True)
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_under_compute_sanitizer(backend, tool, tmp_path):
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=toolkit)
    if sanitizer is None:
        pytest.skip("no compute-sanitizer")
    log = tmp_path / f"{tool}.log"
    # Errors of the API are not the kernels': a torch that asks whether a newer driver is there has some of its own.
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1", "--report-api-errors", "no", "--log-file", str(log)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",  # each tensor its own allocation, so that its end is seen
    }
    command += [sys.executable, "-c", SANITIZED]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    found = log.read_text() if log.exists() else "no log"
    assert result.returncode == 0, result.stderr[-3000:] + found[-5000:]
    assert "SUMMARY: 0 " in found, found[-5000:]  # also where it saw no program to look into
