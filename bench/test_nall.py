"""One NALL, forward and forward + backward, beside what PyTorch offers for the same numbers."""

import peers
import pytest
import torch

import stlora_kernels as sk

SHAPES = [(64, 307, 144, 16), (768, 170, 64, 16)]  # M, N, D, r


def layers():
    """New functions for every test, so that each is compiled for its own shapes."""
    return {"ours": sk.nall, "linear": peers.linear} | peers.eager_and_compiled(*peers.NALLS)


@pytest.mark.parametrize("layer", layers())
@pytest.mark.parametrize("work", ["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "M{}-N{}-D{}-r{}".format(*s))
def test_nall(measure, shape, work, layer):
    M, N, D, r = shape
    torch.manual_seed(0)
    leaves = [torch.randn(M, N, D), torch.randn(D, D), torch.randn(D), torch.randn(N, D, r), torch.randn(N, r, D)]
    call = layers()[layer]
    if layer != "linear":
        torch.testing.assert_close(call(*leaves), peers.bmm(*leaves), atol=1e-2, rtol=1e-3)
    measure("nall", "M{}-N{}-D{}-r{}".format(*shape), work, layer, call, leaves, 2 * M * N * D * D)
