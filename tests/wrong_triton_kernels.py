"""Pieces of the Triton kernels with one mistake each. The suite must notice them; see test_triton_schedules.py."""

import triton
import triton.language as tl


@triton.jit
def load_matrix_one_column_too_far(base, i, j, stride_i, stride_j, I, J):
    offsets = i[:, None].to(tl.int64) * stride_i + j[None, :].to(tl.int64) * stride_j
    return tl.load(base + offsets, mask=(i < I)[:, None] & (j <= J)[None, :], other=0.0)  # wrong: j < J


@triton.jit
def store_rows_one_column_short(base, values, m, n, c, stride_m, stride_n, rows_exist, C):
    offsets = (m * stride_m + n * stride_n)[:, None] + c[None, :]
    tl.store(base + offsets, values.to(base.dtype.element_ty), mask=rows_exist[:, None] & (c < C - 1)[None, :])  # c < C


@triton.jit
def deliver_counted_too_early(value, out, offsets, exists, workspace, counters, tile, split, SPLITS: tl.constexpr):
    if SPLITS == 1:
        tl.store(out + offsets, value.to(out.dtype.element_ty), mask=exists)
    else:
        size: tl.constexpr = value.shape[0] * value.shape[1]
        inside = tl.arange(0, value.shape[0])[:, None] * value.shape[1] + tl.arange(0, value.shape[1])[None, :]
        parts = workspace + tile.to(tl.int64) * SPLITS * size + inside
        arrived = tl.atomic_add(counters + tile, 1, sem="acq_rel")  # wrong: before the part is there
        tl.store(parts + split * size, value)
        if arrived == SPLITS - 1:
            total = tl.zeros(value.shape, tl.float32)
            for s in range(SPLITS):
                total += tl.load(parts + s * size)
            tl.store(out + offsets, total.to(out.dtype.element_ty), mask=exists)
