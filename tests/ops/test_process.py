"""The operations as guests of a process: threads, forks, memory, and whoever listens to torch's dispatcher."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nall_cases import Case
from nsp_cases import Stack
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import stlora_kernels as sk
from stlora_kernels.errors import InputError

CASES = {"nall": Case(64, 20, 48, 32, 8, dropout_p=0.2), "nsp_stack": Stack(64, 20, 32, 8, 3, dropout_p=0.2)}


def _differences(case, expected: dict, runs: int) -> int:
    """How many of so many runs give other bits than expected."""
    tensors = case.tensors(torch.float32)
    results = [case.run("cpu", tensors) for _ in range(runs)]
    return sum(any(not torch.equal(r[name], expected[name]) for name in expected) for r in results)


@pytest.mark.parametrize("name", CASES)
def test_a_thread_pool_and_a_fork_at_once_do_not_disturb_each_other(name):
    case = CASES[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a forked DataLoader worker has it: torch's own thread pool does not survive a fork
    try:
        expected = case.run("cpu", case.tensors(torch.float32))
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(_differences, case, expected, 20) for _ in range(4)]
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=_exit_with_differences, args=(case, expected)) for _ in range(2)]
            for child in children:
                child.start()
            for child in children:
                child.join(60)
            assert [child.exitcode for child in children] == [0, 0]
            assert [call.result() for call in calls] == [0, 0, 0, 0]
    finally:
        torch.set_num_threads(threads)


def _exit_with_differences(case, expected: dict) -> None:
    os._exit(_differences(case, expected, 20))


PROBE = """
import torch, stlora_kernels as sk

def status(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))

def peak_of(call):
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    before = status("VmRSS")
    result = call()
    return result, status("VmHWM") - before

M, N, D, r, L, threads = 768, 120, 64, 16, 3, torch.get_num_threads()
h = torch.randn(M, N, D)
parameters = [[torch.randn(s) / 8 for _ in range(L)] for s in [(D,), (D, D), (D,), (N, D, r), (N, r, D)]]
flat = [t for tensors in parameters for t in tensors]
def stack(x): return sk.nsp_stack(x, *parameters, dropout_p=0.1)
def nall(x): return sk.nall(x, *(t[0] for t in parameters[1:]))
unit, factors = h.nbytes, 4 * 2 * N * D * r
for name, call, saved, gradients, scratch in (
    ("nall", nall, 0, factors, 4 * (6 * D * D + 16 * 32 * D + 1000 * (2 * D + 32) + 2**17)),
    ("nsp_stack", stack, L - 1, L * factors, 4 * (6 * L * D * (D + 4 * 32) + 1000 * (D + 32 + L) + 2**17)),
):
    small = h[:2].clone().requires_grad_()
    call(small).backward(torch.ones_like(small))  # brings in code, threads and what autograd imports
    x, grad = h.clone().requires_grad_(), torch.randn(M, N, D)
    for t in flat: t.requires_grad_()
    allowed = scratch * threads + 2**20  # a page here and there, the interpreter's own
    y, forward = peak_of(lambda: call(x))
    _, backward = peak_of(lambda: y.backward(grad))
    print(name, forward <= (1 + saved) * unit + allowed, backward <= unit + gradients + allowed,
          forward >= (1 + saved) * unit, backward >= unit, forward, backward, unit, allowed)
    for t in flat: t.grad = None
"""


def test_memory_is_what_the_docstrings_say():
    """Nothing as large as x is kept or copied beyond what they name; tests/csrc/scratch_test.cpp counts the scratch."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not say how much memory a process had at most")
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(PROBE)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for line in run.stdout.splitlines():
        assert line.split()[1:5] == ["True"] * 4, run.stdout
    assert len(run.stdout.splitlines()) == 2


class _Listening(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.heard: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.heard.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CASES)
def test_whoever_listens_to_the_dispatcher_hears_the_operator(name):
    case = CASES[name]
    tensors = case.tensors(torch.float32)
    with _Listening() as mode:
        case.run("cpu", tensors)
    assert f"stlora.{name}.default" in mode.heard
    assert f"stlora.{name}_backward.default" in mode.heard
    with torch.profiler.profile() as profile:
        case.run("cpu", tensors)
    names = {event.key for event in profile.key_averages()}
    assert {f"stlora::{name}", f"stlora::{name}_backward"} <= names


def _zeros_without_memory(t):
    return torch._efficientzerotensor(t.shape, dtype=t.dtype)


def _negative_view(t):
    return torch.complex(t, -t).conj().imag  # t itself, kept with the other sign


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("unusual", [_negative_view, _zeros_without_memory])
def test_tensors_that_are_more_than_their_memory(name, unusual):
    case = CASES[name]
    tensors = case.tensors(torch.float64)
    first = "x" if name == "nall" else "h"
    for key in (first, "grad"):
        given = dict(tensors)
        given[key] = unusual(tensors[key])
        usual = dict(tensors)
        usual[key] = given[key].clone()
        x = given[first].detach().requires_grad_()
        results = []
        for source, backend in ((given, "cpu"), (usual, "reference")):
            x = source[first].detach().requires_grad_()
            y = case.call(backend, {**source, first: x})
            (dx,) = torch.autograd.grad(y, x, source["grad"])
            results.append((y, dx))
        torch.testing.assert_close(*results)


class _Refusing(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.is_neg:
            raise KeyError("is_neg")
        return func(*args, **(kwargs or {}))


def test_a_mode_that_raises_leaves_no_error_behind():
    case = CASES["nall"]
    tensors = case.tensors(torch.float32)
    expected = case.call("cpu", tensors)
    with _Refusing():
        torch.testing.assert_close(case.call("cpu", tensors), expected)


def test_a_seed_of_another_type_is_read_as_what_it_is():
    x, weight, A, B = torch.ones(2, 3, 40), torch.ones(4, 40), torch.ones(3, 4, 2), torch.ones(3, 2, 40)

    def y(seed):
        return torch.ops.stlora.nall(x, weight, None, A, B, seed, None, 1.0, 0.5, "none", 0.1, "cpu")

    assert torch.equal(y(torch.tensor([1, 99], dtype=torch.int32)[0]), y(torch.tensor(1)))


def test_many_gradients_at_once():
    layer, x = sk.FusedNALL(4, 3, 5, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    torch.nn.init.normal_(layer.lora_A)
    slow, fast = (torch.autograd.functional.jacobian(layer, x, vectorize=vectorize) for vectorize in (False, True))
    torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize("name", CASES)
def test_forward_mode_derivatives_are_right_or_refused(name):
    case = CASES[name]
    tensors = case.tensors(torch.float64)
    first = "x" if name == "nall" else "h"
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(tensors[first], torch.ones_like(tensors[first]))
        tangents = [
            torch.autograd.forward_ad.unpack_dual(case.call(backend, {**tensors, first: dual})).tangent
            for backend in (None, "reference")
        ]
        torch.testing.assert_close(*tangents)
        with pytest.raises(InputError, match="forward-mode derivatives have no kernel"):
            case.call("cpu", {**tensors, first: dual})


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_traced_layer_computes_on_new_inputs():
    layer = sk.FusedNALL(5, 3, 4).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        traced = torch.jit.trace(layer, torch.randn(2, 5, 3))
        x = torch.randn(2, 5, 3)
        torch.testing.assert_close(traced(x), layer(x))


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("tracing_mode", ["real", "fake"])
def test_a_graph_holds_the_operator(pre_dispatch, tracing_mode):
    tensors = (torch.randn(2, 5, 3), torch.randn(4, 3), torch.randn(4), torch.randn(5, 4, 2), torch.randn(5, 2, 3))
    graph = make_fx(lambda *t: sk.nall(*t), pre_dispatch=pre_dispatch, tracing_mode=tracing_mode)(*tensors).graph
    assert torch.ops.stlora.nall.default in [node.target for node in graph.nodes]
