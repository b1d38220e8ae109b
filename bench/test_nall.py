"""One NALL, forward and forward + backward, beside what PyTorch offers for the same numbers.

Peers: the formula as einsum, as batched products, and as one batched product with the merged weight, each eager and
compiled; and `F.linear` alone, the shared layer that a NALL replaces.
"""

import pytest
import torch
import torch.nn.functional as F

import stlora_kernels as sk

SHAPES = [(64, 307, 144, 16), (768, 170, 64, 16)]  # M, N, D, r


def linear(x, weight, bias, A, B):
    return F.linear(x, weight, bias)


def einsum(x, weight, bias, A, B):
    low_rank = torch.einsum("mnr,nor->mno", torch.einsum("mni,nri->mnr", x, B), A)
    return F.linear(x, weight, bias) + low_rank


def bmm(x, weight, bias, A, B):
    low_rank = torch.bmm(torch.bmm(x.transpose(0, 1), B.transpose(1, 2)), A.transpose(1, 2))
    return F.linear(x, weight, bias) + low_rank.transpose(0, 1)


def merged(x, weight, bias, A, B):
    return torch.baddbmm(bias, x.transpose(0, 1), (weight + torch.bmm(A, B)).transpose(1, 2)).transpose(0, 1)


def ours(x, weight, bias, A, B):
    return sk.nall(x, weight, bias, A, B)


LAYERS = {"ours": ours, "linear": linear} | {
    name: layer
    for f in (einsum, bmm, merged)
    for name, layer in ((f.__name__, f), (f"{f.__name__} compiled", torch.compile(f, fullgraph=True)))
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("work", ["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "M{}-N{}-D{}-r{}".format(*s))
def test_nall(benchmark, record, shape, work, layer):
    M, N, D, r = shape
    torch.manual_seed(0)
    leaves = [torch.randn(M, N, D), torch.randn(D, D), torch.randn(D), torch.randn(N, D, r), torch.randn(N, r, D)]
    grad, call = torch.randn(M, N, D), LAYERS[layer]
    if work == "forward":
        flop = 2 * M * N * D * D

        @torch.no_grad()
        def run():
            call(*leaves)

    else:
        flop = 3 * 2 * M * N * D * D
        for leaf in leaves:
            leaf.requires_grad_()

        def run():
            call(*leaves).backward(grad)
            for leaf in leaves:
                leaf.grad = None

    if layer != "linear":
        torch.testing.assert_close(call(*leaves), bmm(*leaves), atol=1e-2, rtol=1e-3)
    record("nall", "M{}-N{}-D{}-r{}".format(*shape), work, layer, flop)
    benchmark.pedantic(run, rounds=15, warmup_rounds=3)
