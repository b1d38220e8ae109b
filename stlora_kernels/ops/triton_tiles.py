"""What the Triton kernels share: tiles of strided arrays, the dropout contract, and sums that several programs share.

Rows of an array ``[M, N, C]`` are named by vectors ``m`` and ``n``, so that a tile may take the rows of one node or of
several. Offsets are 64-bit. What lies beyond an array reads as zero.
"""

import triton
import triton.language as tl
from triton.language.target_info import is_hip


@triton.jit
def pick(items, i):
    """items[i] of a tuple of pointers or numbers, where i is known only on the device."""
    chosen = items[0]
    for j in tl.static_range(1, len(items)):
        chosen = tl.where(i == j, items[j], chosen)
    return chosen


@triton.jit
def own_rows(job, M, node_index, HAS_INDEX: tl.constexpr, BM: tl.constexpr):
    """The job-th tile of BM rows of one node: their m and n, which of them exist, and the node's adapter."""
    tiles = tl.cdiv(M, BM)
    slot = (job // tiles).to(tl.int64)
    m = (job % tiles * BM + tl.arange(0, BM)).to(tl.int64)
    p = tl.load(node_index + slot) if HAS_INDEX else slot
    return m, slot + m * 0, m < M, p


@triton.jit
def load_rows(base, m, n, c, stride_m, stride_n, stride_c, rows_exist, C):
    offsets = (m * stride_m + n * stride_n)[:, None] + c[None, :].to(tl.int64) * stride_c
    return tl.load(base + offsets, mask=rows_exist[:, None] & (c < C)[None, :], other=0.0)  # [rows, columns]


@triton.jit
def store_rows(base, values, m, n, c, stride_m, stride_n, rows_exist, C):
    """Into an array whose columns are neighbours."""
    offsets = (m * stride_m + n * stride_n)[:, None] + c[None, :]
    tl.store(base + offsets, values.to(base.dtype.element_ty), mask=rows_exist[:, None] & (c < C)[None, :])


@triton.jit
def load_matrix(base, i, j, stride_i, stride_j, I, J):
    offsets = i[:, None].to(tl.int64) * stride_i + j[None, :].to(tl.int64) * stride_j
    return tl.load(base + offsets, mask=(i < I)[:, None] & (j < J)[None, :], other=0.0)  # [i, j]


@triton.jit
def load_gradient(grad, y, m, n, o, stride_m, stride_n, stride_o, rows_exist, N, O, slope, ACTIVATION: tl.constexpr):
    """dL/dy before the activation, which is undone from its output y, a contiguous ``[M, N, O]``."""
    g = load_rows(grad, m, n, o, stride_m, stride_n, stride_o, rows_exist, O)
    if ACTIVATION != "none":
        positive = load_rows(y, m, n, o, N * O, O, 1, rows_exist, O) > 0
        g = tl.where(positive, g, 0.0 if ACTIVATION == "relu" else (g * slope).to(g.dtype))
    return g  # [rows, o]


@triton.jit
def keep(m, n, c0, N, C, seed, threshold, layer, STREAM: tl.constexpr, COLUMNS: tl.constexpr, ALIGNED: tl.constexpr):
    """Which of columns ``[c0, c0 + COLUMNS)`` survive dropout, by the contract of ``philox.py``: ``[rows, COLUMNS]``.

    One draw gives four words, for four neighbours; rows that are not ALIGNED to that draw once per element.
    """
    first = ((m * N + n) * C)[:, None]
    if ALIGNED:
        block = first // 4 + (c0 // 4 + tl.arange(0, COLUMNS // 4))[None, :]
    else:
        element = first + (c0 + tl.arange(0, COLUMNS))[None, :]
        block = element // 4
    low, high = (block & 0xFFFFFFFF).to(tl.uint32), (block >> 32).to(tl.uint32)
    zero = low ^ low
    w0, w1, w2, w3 = tl.philox(seed, low, high, zero + STREAM, zero + tl.cast(layer, tl.uint32))
    if ALIGNED:
        words = tl.join(tl.join(w0, w2), tl.join(w1, w3)).reshape([m.shape[0], COLUMNS])
    else:
        word = element % 4
        words = tl.where(word == 0, w0, tl.where(word == 1, w1, tl.where(word == 2, w2, w3)))
    return words.to(tl.int64) >= threshold


@triton.jit
def publish():
    """Before a program counts itself: the stores of all its threads are where the count will release them from."""
    if (
        is_hip()
    ):  # there, a barrier waits for no store, and the release that follows is of one wave and waits for its own
        waves = tl.arange(0, 1024)
        tl.inline_asm_elementwise(
            "s_waitcnt vmcnt(0)\nv_mov_b32 $0, $1", "=v,v,~{memory}", [waves], dtype=tl.int32, is_pure=False, pack=1
        )
    tl.debug_barrier()


@triton.jit
def deliver(value, out, offsets, exists, workspace, counters, tile, split, SPLITS: tl.constexpr):
    """Stores a tile of which every one of SPLITS programs has a part.

    Each leaves its part in the workspace and counts itself; the last to arrive adds up all parts in the order of the
    splits: the same bits from run to run.
    """
    if SPLITS == 1:
        tl.store(out + offsets, value.to(out.dtype.element_ty), mask=exists)
    else:
        size: tl.constexpr = value.shape[0] * value.shape[1]
        inside = tl.arange(0, value.shape[0])[:, None] * value.shape[1] + tl.arange(0, value.shape[1])[None, :]
        parts = workspace + tile.to(tl.int64) * SPLITS * size + inside
        tl.store(parts + split * size, value)
        publish()
        if tl.atomic_add(counters + tile, 1, sem="acq_rel") == SPLITS - 1:
            tl.debug_barrier()
            total = tl.zeros(value.shape, tl.float32)
            for s in range(SPLITS):
                total += tl.load(parts + s * size, cache_modifier=".cg")  # from L2: other programs wrote it
            tl.store(out + offsets, total.to(out.dtype.element_ty), mask=exists)
