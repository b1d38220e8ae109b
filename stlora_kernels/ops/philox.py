"""The dropout contract, in plain torch: which elements every backend keeps, bit for bit.

Element ``e`` (its index in the logical ``[M, N, I]`` array) is kept iff word ``e % 4`` of
``philox4x32_10(key=seed, counter=(e // 4 low, e // 4 high, stream, layer))`` is at least ``p * 2**32``.
Nothing but the seed is stored for the backward pass.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox-4x32 with 10 rounds).
"""

import math

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK32 = 0xFFFFFFFF

# One stream per place where a mask is drawn, so that two masks of one seed are independent.
STREAM_LOW_RANK = 0  # dropout on the input of the low-rank path of a NALL
STREAM_SIGMA = 1  # dropout at the end of sigma, before the NALL of an NSP layer


def draw_seed() -> Tensor:
    """A fresh seed (0-d int64 on the CPU) from torch's default generator, so ``torch.manual_seed`` governs it."""
    return torch.randint(0, 2**63 - 1, (), dtype=torch.int64)


def philox4x32(seed: Tensor, block: Tensor, stream: int = 0, layer: int = 0) -> Tensor:
    """Four random words for every counter.

    Args:
        seed: 0-d int64; its low and high halves are the key.
        block: ``[K]`` int64, the low 64 bits of the counter.
        stream, layer: the two upper 32-bit words of the counter.

    Returns:
        ``[K, 4]`` int64 in ``[0, 2**32)``.
    """
    seed = seed.to(block.device)
    key0, key1 = seed & MASK32, (seed >> 32) & MASK32
    c0, c1 = block & MASK32, (block >> 32) & MASK32
    c2, c3 = torch.full_like(block, stream), torch.full_like(block, layer)
    for _ in range(ROUNDS):
        # int64 products wrap, but their 64 bits are those of the unsigned product.
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & MASK32) ^ c1 ^ key0,
            product1 & MASK32,
            ((product0 >> 32) & MASK32) ^ c3 ^ key1,
            product0 & MASK32,
        )
        key0, key1 = (key0 + WEYL[0]) & MASK32, (key1 + WEYL[1]) & MASK32
    return torch.stack([c0, c1, c2, c3], dim=-1)  # [K, 4]


def keep_mask(shape: tuple[int, ...] | torch.Size, p: float, seed: Tensor, stream: int = 0, layer: int = 0) -> Tensor:
    """Which elements of an array of this shape survive dropout: bool, ``True`` = kept."""
    count = math.prod(shape)
    block = torch.arange((count + 3) // 4, dtype=torch.int64, device=seed.device)
    words = philox4x32(seed, block, stream, layer).reshape(-1)[:count]
    return (words >= math.ceil(p * 2**32)).reshape(shape)


def dropout(x: Tensor, p: float, seed: Tensor, stream: int = 0, layer: int = 0) -> Tensor:
    """Inverted dropout of ``x`` (kept elements are divided by ``1 - p``) with the mask of the contract."""
    if p == 1.0:
        return torch.zeros_like(x)
    keep = keep_mask(x.shape, p, seed, stream, layer).to(x.device)
    return torch.where(keep, x / (1.0 - p), 0.0)
