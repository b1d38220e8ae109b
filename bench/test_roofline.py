"""What this machine can do at most, in the same run: a large product and a large copy."""

import torch


def test_product(measure):
    measure("roofline", "1024x1024x1024", "product", "machine", torch.mm, list(torch.randn(2, 1024, 1024)), 2 * 1024**3)


def test_copy(measure):
    source, target = torch.randn(2, 1 << 25)  # 128 MiB each: far beyond any cache
    measure("roofline", "128 MiB", "copy, byte read and written", "machine", target.copy_, [source], 2 * source.nbytes)
