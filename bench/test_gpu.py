"""A NALL and an NSP stack on the GPU, by its own clock and from a cold L2, beside what PyTorch offers there.

    ./dev bench -m gpu [-k "nsp_stack and bf16"]

"eager" starts on an idle GPU and has the host's launching in it; "graph" replays the same call from a CUDA graph and is
what the GPU alone takes. The title of the table has what the clock shows for a single number (floor_ms).
"""

import functools

import gpu_clock
import peers
import pytest
import test_nall
import test_nsp
import torch
import torch.nn.functional as F
from torch import Tensor

import stlora_kernels as sk
from stlora_kernels.ops import dispatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.benchmark(timer=gpu_clock.Tick),
]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
BACKENDS = ("cuda", "triton")
DEPTH = 4  # layers of the stack


def linears(h: Tensor, norm_weights, weights, biases, As, Bs, dropout_p: float) -> Tensor:
    """The stack's shared layers alone."""
    for weight, bias in zip(weights, biases, strict=True):
        h = F.linear(h, weight, bias)
    return h


def layers(operation):
    """The layers as functions of their leaves; new for every test, so that each is compiled for its own shapes."""
    ours, linear, formulas = sk.nall, peers.linear, peers.NALLS
    if operation == "nsp_stack":
        ours, linear, formulas = sk.nsp_stack, linears, [peers.nsp_stack_of(nall) for nall in peers.NALLS]
    found = {f"ours {backend}": functools.partial(ours, backend=backend) for backend in BACKENDS}
    found |= {"linear": linear} | peers.eager_and_compiled(*formulas)
    if operation == "nall":
        return found
    return {name: test_nsp.of_leaves(function, DEPTH) for name, function in found.items()}


def results(call, leaves, grad):
    """The output and, under a gradient, every leaf's."""
    leaves = [leaf.detach().requires_grad_(grad is not None) for leaf in leaves]
    y = call(*leaves)
    return [y] if grad is None else [y.detach(), *torch.autograd.grad(y, leaves, grad)]


def assert_right(call, peer, leaves, backward):
    """No further from the peer in fp64 than twice what the peer is in the layer's own dtype."""
    grad = torch.randn_like(leaves[0]) if backward else None
    ours, peers_own = (results(function, leaves, grad) for function in (call, peer))
    truth = results(peer, [leaf.double() for leaf in leaves], None if grad is None else grad.double())
    for i, (got, own, true) in enumerate(zip(ours, peers_own, truth, strict=True)):
        error, allowed = (float((t.double() - true).norm() / true.norm()) for t in (got, own))
        assert error <= 2 * allowed + max(torch.finfo(got.dtype).eps, 1e-5), f"result {i}"


@pytest.fixture(scope="module")
def machine():
    return gpu_clock.machine()


@pytest.fixture
def measure_on_gpu(benchmark, machine):
    """Times one work of one layer, eager and as a CUDA graph, and names it for the table."""

    def run(operation, shape, dtype, work, layer, call, leaves) -> None:
        backward = work == "forward+backward"
        for leaf in leaves:
            leaf.requires_grad_(backward)
        with torch.set_grad_enabled(backward):
            grad = torch.randn_like(call(*leaves))

            def once() -> None:
                y = call(*leaves)
                if backward:
                    torch.autograd.grad(y, leaves, grad, allow_unused=True)

            # Every tensor once: x, the parameters and y; in training their gradients too.
            least = (1 + backward) * (grad.nbytes + sum(leaf.nbytes for leaf in leaves))
            name = "M{}-N{}-D{}-r{}".format(*shape)
            benchmark.group = f"{operation} {name} {dtype} {work}"
            benchmark.extra_info.update(operation=operation, shape=name, dtype=dtype, work=work, layer=layer)
            benchmark.extra_info.update(machine=machine, least_bytes=least, replays_ms=gpu_clock.replays(once))
            benchmark.pedantic(
                once, setup=gpu_clock.idle_and_cold, rounds=gpu_clock.ROUNDS, warmup_rounds=gpu_clock.WARMUP_ROUNDS
            )

    return run


@pytest.mark.parametrize("layer", layers("nall"))
@pytest.mark.parametrize("work", ["forward", "forward+backward"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", test_nall.SHAPES, ids=lambda s: "M{}-N{}-D{}-r{}".format(*s))
@pytest.mark.parametrize("operation", ["nall", "nsp_stack"])
def test_on_gpu(measure_on_gpu, operation, shape, dtype, work, layer):
    name, _, backend = layer.partition(" ")
    if name == "ours" and (reason := dispatch.why_unavailable(backend, "cuda")) is not None:
        pytest.skip(reason)
    stack = operation == "nsp_stack"
    leaves = test_nsp.leaves_of(*shape, DEPTH) if stack else test_nall.leaves_of(*shape)
    leaves = [leaf.to("cuda", DTYPES[dtype]) for leaf in leaves]
    call = layers(operation)[layer]
    if name != "linear" and backend != "compiled":  # what is compiled is an eager peer's formula
        options = {"dropout_p": 0.0} if stack else {}
        pair = [functools.partial(function, **options) for function in (call, layers(operation)["bmm"])]
        assert_right(*pair, leaves, work == "forward+backward")
    measure_on_gpu(operation, shape, dtype, work, layer, call, leaves)
