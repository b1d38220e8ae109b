"""One NALL, forward and forward + backward, beside what PyTorch offers for the same numbers."""

import peers
import pytest
import torch

import stlora_kernels as sk

SHAPES = [(64, 307, 144, 16), (768, 170, 64, 16)]  # M, N, D, r


def layers():
    """New functions for every test, so that each is compiled for its own shapes."""
    return {"ours": sk.nall, "linear": peers.linear} | peers.eager_and_compiled(*peers.NALLS)


def leaves_of(M, N, D, r):
    torch.manual_seed(0)
    return [torch.randn(M, N, D), torch.randn(D, D), torch.randn(D), torch.randn(N, D, r), torch.randn(N, r, D)]


@pytest.mark.parametrize("layer", layers())
@pytest.mark.parametrize("work", ["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "M{}-N{}-D{}-r{}".format(*s))
def test_nall(measure, shape, work, layer):
    M, N, D, _ = shape
    leaves = leaves_of(*shape)
    call = layers()[layer]
    if layer != "linear":
        torch.testing.assert_close(call(*leaves), peers.bmm(*leaves), atol=1e-2, rtol=1e-3)
    measure("nall", "M{}-N{}-D{}-r{}".format(*shape), work, layer, call, leaves, 2 * M * N * D * D)


def test_nall_in_bf16(measure):
    """A claim only where the machine has AVX512-BF16; elsewhere bf16 saves memory, not time."""
    M, N, D, _ = SHAPES[0]
    leaves = [t.to(torch.bfloat16) for t in leaves_of(*SHAPES[0])]
    error = sk.nall(*leaves).double() - peers.bmm(*(t.double() for t in leaves))
    assert error.norm() <= 0.01 * error.add(sk.nall(*leaves).double()).norm()
    measure("nall", "M{}-N{}-D{}-r{}".format(*SHAPES[0]), "forward", "ours bf16", sk.nall, leaves, 2 * M * N * D * D)


@pytest.mark.parametrize("N", [307, 8600])
def test_nall_by_nodes(measure, N):
    shape = (16, N, 64, 16)
    name = "M{}-N{}-D{}-r{}".format(*shape)
    measure("nall", name, "forward+backward", "ours", sk.nall, leaves_of(*shape), 2 * 16 * N * 64 * 64)
