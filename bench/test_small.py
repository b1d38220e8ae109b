"""Small and awkward NALLs, where the time per call counts, beside what eager PyTorch offers."""

import peers
import pytest
import torch

import stlora_kernels as sk

SHAPES = [  # M, N, D, r
    (1, 1, 1, 1),
    (8, 1, 7, 1),
    (256, 20, 1, 1),
    (8, 20, 7, 5),
    (12, 5, 33, 1),
    (32, 7, 33, 64),
    (256, 1, 64, 16),
    (16, 3, 513, 5),
    (64, 20, 513, 64),
]


@pytest.mark.parametrize("layer", {"ours": sk.nall} | {f.__name__: f for f in peers.NALLS})
@pytest.mark.parametrize("work", ["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "M{}-N{}-D{}-r{}".format(*s))
def test_small_nall(measure, shape, work, layer):
    M, N, D, r = shape
    torch.manual_seed(0)
    leaves = [torch.randn(M, N, D), torch.randn(D, D), torch.randn(D), torch.randn(N, D, r), torch.randn(N, r, D)]
    call = ({"ours": sk.nall} | {f.__name__: f for f in peers.NALLS})[layer]
    flop = 2 * M * N * D * D
    measure(
        "small nall", "M{}-N{}-D{}-r{}".format(*shape), work, layer, call, leaves, flop, calls=200 if D < 500 else 5
    )
