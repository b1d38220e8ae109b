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


@pytest.mark.parametrize("stack", stacks())
@pytest.mark.parametrize("depth", [1, 4], ids=["layer", "stack of 4"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "M{}-N{}-D{}-r{}".format(*s))
def test_nsp(measure, shape, depth, stack):
    M, N, D, r = shape
    torch.manual_seed(0)
    shapes = [(D,), (D, D), (D,), (N, D, r), (N, r, D)]
    h = torch.randn(M, N, D)
    flat = [torch.randn(s) / D**0.5 for s in shapes for _ in range(depth)]

    function = stacks()[stack]

    def call(h, *flat, dropout_p=DROPOUT):
        return function(h, *(flat[i * depth : (i + 1) * depth] for i in range(5)), dropout_p=dropout_p)

    if stack == "ours":
        expected = peers.nsp_stack_of(peers.bmm)(h, *(flat[i * depth : (i + 1) * depth] for i in range(5)), 0.0)
        torch.testing.assert_close(call(h, *flat, dropout_p=0.0), expected, atol=1e-2, rtol=1e-3)
    name = "nsp_layer" if depth == 1 else "nsp_stack"
    flop = 2 * M * N * D * D * depth
    measure(name, "M{}-N{}-D{}-r{}".format(*shape), "forward+backward", stack, call, [h, *flat], flop)
