"""NSP layers, one and four, forward + backward with dropout, beside what PyTorch offers."""

import peers
import pytest
import torch

import stlora_kernels as sk

SHAPES = [(64, 307, 144, 16), (768, 170, 64, 16)]  # M, N, D, r
DROPOUT = 0.1


def stacks():
    """New functions for every test, so that each is compiled for its own shapes."""
    return {"ours": sk.nsp_stack} | peers.eager_and_compiled(*(peers.nsp_stack_of(nall) for nall in peers.NALLS))


def leaves_of(M, N, D, r, depth):
    torch.manual_seed(0)
    shapes = [(D,), (D, D), (D,), (N, D, r), (N, r, D)]
    return [torch.randn(M, N, D), *(torch.randn(s) / D**0.5 for s in shapes for _ in range(depth))]


def of_leaves(function, depth):
    """The stack as a function of its leaves."""
    return lambda h, *flat, dropout_p=DROPOUT: function(
        h, *(flat[i * depth : (i + 1) * depth] for i in range(5)), dropout_p=dropout_p
    )


@pytest.mark.parametrize("stack", stacks())
@pytest.mark.parametrize("depth", [1, 4], ids=["layer", "stack of 4"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "M{}-N{}-D{}-r{}".format(*s))
def test_nsp(measure, shape, depth, stack):
    M, N, D, _ = shape
    leaves, call = leaves_of(*shape, depth), of_leaves(stacks()[stack], depth)
    if stack == "ours":
        expected = of_leaves(peers.nsp_stack_of(peers.bmm), depth)(*leaves, dropout_p=0.0)
        torch.testing.assert_close(call(*leaves, dropout_p=0.0), expected, atol=1e-2, rtol=1e-3)
    name = "nsp_layer" if depth == 1 else "nsp_stack"
    flop = 2 * M * N * D * D * depth
    measure(name, "M{}-N{}-D{}-r{}".format(*shape), "forward+backward", stack, call, leaves, flop)


@pytest.mark.parametrize("N", [307, 8600])
def test_nsp_by_nodes(measure, N):
    shape, depth = (16, N, 64, 16), 4
    name, flop = "M{}-N{}-D{}-r{}".format(*shape), 2 * 16 * N * 64 * 64 * depth
    call = of_leaves(sk.nsp_stack, depth)
    measure("nsp_stack", name, "forward+backward", "ours", call, leaves_of(*shape, depth), flop)
