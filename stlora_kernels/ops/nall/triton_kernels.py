"""The two kernels of NALL in Triton.

Forward: a program owns a tile of rows of one node and a block of output columns. It walks along the input features
once, with the tile of y and the low-rank code z in registers; W, A and B come from L2, where the node's other programs
have brought them. y is written once.

Backward, one grid of four roles, each owning a tile of one result and recomputing what is small:
  dW, db a block of [O, I] and a share of all rows: G^T X, and the column sums of G;
  dA_p   a block of output rows of one adapter and a share of its rows: alpha G^T Z, Z = (mask * X) B_p^T;
  dB_p   a block of input columns of one adapter and a share of its rows: alpha U^T (mask * X), U = G A_p;
  dX     a tile of rows of one node, a block of input columns: G W + mask * alpha (U B_p).
Shares are added up by the last program to arrive, in order (triton_tiles.deliver). Z and U never leave the chip.
"""

import triton
import triton.language as tl

from stlora_kernels.ops import philox
from stlora_kernels.ops.triton_tiles import deliver, keep, load_gradient, load_matrix, load_rows, own_rows, store_rows

STREAM = tl.constexpr(philox.STREAM_LOW_RANK)


@triton.jit
def low_rank_x(
    xt, m, n, i0, N, I, seed, threshold, scale, DROPOUT: tl.constexpr, BI: tl.constexpr, ALIGNED: tl.constexpr
):
    if DROPOUT:
        kept = keep(m, n, i0, N, I, seed, threshold, 0, STREAM, BI, ALIGNED)
        xt = tl.where(kept, xt * scale, 0.0).to(xt.dtype)
    return xt


@triton.jit(do_not_specialize=["seed"])
def forward(
    x, weight, bias, A, B, seed, node_index, y, M, N, I, O, r, x_m, x_n, x_i,
    alpha, threshold, scale, slope,
    HAS_BIAS: tl.constexpr, HAS_INDEX: tl.constexpr, SEED_AT: tl.constexpr, DROPOUT: tl.constexpr,
    ALIGNED: tl.constexpr, ACTIVATION: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    m, n, rows_exist, p = own_rows(tl.program_id(0), M, node_index, HAS_INDEX, BM)
    o, k = tl.program_id(1) * BO + tl.arange(0, BO), tl.arange(0, R)
    if SEED_AT:
        seed = tl.load(seed)
    acc, z = tl.zeros([BM, BO], tl.float32), tl.zeros([BM, R], tl.float32)
    for i0 in range(0, I, BI):
        i = i0 + tl.arange(0, BI)
        xt = load_rows(x, m, n, i, x_m, x_n, x_i, rows_exist, I)  # [BM, BI]
        w_t = load_matrix(weight, i, o, 1, I, I, O)  # [BI, BO]
        b_t = load_matrix(B + p * r * I, i, k, 1, I, I, r)  # [BI, R]
        acc = tl.dot(xt, w_t, acc, input_precision=PRECISION)
        xt = low_rank_x(xt, m, n, i0, N, I, seed, threshold, scale, DROPOUT, BI, ALIGNED)
        z = tl.dot(xt, b_t, z, input_precision=PRECISION)
    z = tl.where((k < r)[None, :], z, 0.0)  # an infinite x times the padding of B
    a_t = load_matrix(A + p * O * r, k, o, 1, r, r, O)  # [R, BO]
    acc += alpha * tl.dot(z.to(a_t.dtype), a_t, input_precision=PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias + o, mask=o < O, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION == "relu":
        acc = tl.where(acc <= 0, 0.0, acc)
    elif ACTIVATION == "leaky_relu":
        acc = tl.where(acc > 0, acc, acc * slope)
    store_rows(y, acc, m, n, o, N * O, O, rows_exist, O)


@triton.jit
def adapter_rows(q, rows, begin, order, M, HAS_INDEX: tl.constexpr):
    """Row and node slot of the q-th row of an adapter, whose slots stand in ``order`` from ``begin`` on."""
    slot = begin + q // M
    if HAS_INDEX:
        slot = tl.load(order + slot, mask=q < rows, other=0)
    return q % M, slot


@triton.jit
def adapter_share(p, split, first_slot, M, HAS_INDEX: tl.constexpr, SPLITS: tl.constexpr, BM: tl.constexpr):
    """Where the slots of an adapter begin, how many rows it has, and a split's share [begin, end) of those."""
    begin = tl.load(first_slot + p) if HAS_INDEX else p
    end = tl.load(first_slot + p + 1) if HAS_INDEX else p + 1
    rows = (end - begin) * M
    share = tl.cdiv(tl.cdiv(rows, BM), SPLITS) * BM
    return begin, rows, split * share, tl.minimum((split + 1) * share, rows)


@triton.jit
def shared_gradients(
    pid, grad, y, x, dweight, dbias, workspace, counters, M, N, I, O, g_m, g_n, g_o, x_m, x_n, x_i, slope,
    ACTIVATION: tl.constexpr, PRECISION: tl.constexpr, NEEDS_WEIGHT: tl.constexpr, NEEDS_BIAS: tl.constexpr,
    SPLITS: tl.constexpr, BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    o_blocks, i_blocks = tl.cdiv(O, BO), tl.maximum(tl.cdiv(I, BI), 1)
    tile, split = pid // SPLITS, pid % SPLITS
    o = tile // i_blocks * BO + tl.arange(0, BO)
    i = tile % i_blocks * BI + tl.arange(0, BI)
    rows = tl.cast(M, tl.int64) * N
    share = tl.cdiv(tl.cdiv(rows, BM), SPLITS) * BM
    acc, sums = tl.zeros([BO, BI], tl.float32), tl.zeros([BO], tl.float32)
    for q0 in range(split * share, tl.minimum((split + 1) * share, rows), BM):
        q = tl.cast(q0, tl.int64) + tl.arange(0, BM)
        m, n = q // N, q % N
        g = load_gradient(grad, y, m, n, o, g_m, g_n, g_o, q < rows, N, O, slope, ACTIVATION)
        sums += tl.sum(g.to(tl.float32), 0)
        if NEEDS_WEIGHT:
            xt = load_rows(x, m, n, i, x_m, x_n, x_i, q < rows, I)
            acc = tl.dot(tl.trans(g), xt, acc, input_precision=PRECISION)
    if NEEDS_WEIGHT:
        offsets, exists = o[:, None] * I + i[None, :], (o < O)[:, None] & (i < I)[None, :]
        deliver(acc, dweight, offsets, exists, workspace, counters, tile, split, SPLITS)
    if NEEDS_BIAS:
        if tile % i_blocks == 0:
            parts = workspace + tl.cast(o_blocks, tl.int64) * i_blocks * SPLITS * BO * BI
            ends = counters + o_blocks * i_blocks
            deliver(sums[:, None], dbias, o[:, None], (o < O)[:, None], parts, ends, tile // i_blocks, split, SPLITS)


@triton.jit
def gradient_of_a(
    pid, grad, y, x, B, seed, order, first_slot, dA, workspace, counters,
    M, N, I, O, r, g_m, g_n, g_o, x_m, x_n, x_i, alpha, threshold, scale, slope,
    HAS_INDEX: tl.constexpr, DROPOUT: tl.constexpr, ALIGNED: tl.constexpr, ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr, SPLITS: tl.constexpr,
    BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    tile, split = pid // SPLITS, pid % SPLITS
    blocks = tl.cdiv(O, BO)
    p = (tile // blocks).to(tl.int64)
    o, k = tile % blocks * BO + tl.arange(0, BO), tl.arange(0, R)
    begin, rows, q_begin, q_end = adapter_share(p, split, first_slot, M, HAS_INDEX, SPLITS, BM)
    acc = tl.zeros([BO, R], tl.float32)
    for q0 in range(q_begin, q_end, BM):
        q = tl.cast(q0, tl.int64) + tl.arange(0, BM)
        m, n = adapter_rows(q, rows, begin, order, M, HAS_INDEX)
        z = tl.zeros([BM, R], tl.float32)
        for i0 in range(0, I, BI):
            i = i0 + tl.arange(0, BI)
            xt = load_rows(x, m, n, i, x_m, x_n, x_i, q < rows, I)
            xt = low_rank_x(xt, m, n, i0, N, I, seed, threshold, scale, DROPOUT, BI, ALIGNED)
            b_t = load_matrix(B + p * r * I, i, k, 1, I, I, r)  # [BI, R]
            z = tl.dot(xt, b_t, z, input_precision=PRECISION)
        g = load_gradient(grad, y, m, n, o, g_m, g_n, g_o, q < rows, N, O, slope, ACTIVATION)
        acc = tl.dot(tl.trans(g), z.to(g.dtype), acc, input_precision=PRECISION)
    offsets, exists = p * O * r + o[:, None] * r + k[None, :], (o < O)[:, None] & (k < r)[None, :]
    deliver(acc * alpha, dA, offsets, exists, workspace, counters, tile, split, SPLITS)


@triton.jit
def gradient_of_b(
    pid, grad, y, x, A, seed, order, first_slot, dB, workspace, counters,
    M, N, I, O, r, g_m, g_n, g_o, x_m, x_n, x_i, alpha, threshold, scale, slope,
    HAS_INDEX: tl.constexpr, DROPOUT: tl.constexpr, ALIGNED: tl.constexpr, ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr, SPLITS: tl.constexpr,
    BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    tile, split = pid // SPLITS, pid % SPLITS
    blocks = tl.cdiv(I, BI)
    p = (tile // blocks).to(tl.int64)
    i0 = tile % blocks * BI
    i, k = i0 + tl.arange(0, BI), tl.arange(0, R)
    begin, rows, q_begin, q_end = adapter_share(p, split, first_slot, M, HAS_INDEX, SPLITS, BM)
    acc = tl.zeros([R, BI], tl.float32)
    for q0 in range(q_begin, q_end, BM):
        q = tl.cast(q0, tl.int64) + tl.arange(0, BM)
        m, n = adapter_rows(q, rows, begin, order, M, HAS_INDEX)
        u = tl.zeros([BM, R], tl.float32)
        for o0 in range(0, O, BO):
            o = o0 + tl.arange(0, BO)
            g = load_gradient(grad, y, m, n, o, g_m, g_n, g_o, q < rows, N, O, slope, ACTIVATION)
            a = load_matrix(A + p * O * r, o, k, r, 1, O, r)  # [BO, R]
            u = tl.dot(g, a, u, input_precision=PRECISION)
        xt = load_rows(x, m, n, i, x_m, x_n, x_i, q < rows, I)
        xt = low_rank_x(xt, m, n, i0, N, I, seed, threshold, scale, DROPOUT, BI, ALIGNED)
        acc = tl.dot(tl.trans(u.to(xt.dtype)), xt, acc, input_precision=PRECISION)
    offsets, exists = p * r * I + k[:, None] * I + i[None, :], (k < r)[:, None] & (i < I)[None, :]
    deliver(acc * alpha, dB, offsets, exists, workspace, counters, tile, split, SPLITS)


@triton.jit
def gradient_of_x(
    pid, grad, y, weight, A, B, seed, node_index, dx,
    M, N, I, O, r, g_m, g_n, g_o, alpha, threshold, scale, slope,
    HAS_INDEX: tl.constexpr, DROPOUT: tl.constexpr, ALIGNED: tl.constexpr, ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr, BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    i_blocks = tl.cdiv(I, BI)
    i0 = pid % i_blocks * BI
    m, n, rows_exist, p = own_rows(pid // i_blocks, M, node_index, HAS_INDEX, BM)
    i, k = i0 + tl.arange(0, BI), tl.arange(0, R)
    acc, u = tl.zeros([BM, BI], tl.float32), tl.zeros([BM, R], tl.float32)
    for o0 in range(0, O, BO):
        o = o0 + tl.arange(0, BO)
        g = load_gradient(grad, y, m, n, o, g_m, g_n, g_o, rows_exist, N, O, slope, ACTIVATION)
        acc = tl.dot(g, load_matrix(weight, o, i, I, 1, O, I), acc, input_precision=PRECISION)
        u = tl.dot(g, load_matrix(A + p * O * r, o, k, r, 1, O, r), u, input_precision=PRECISION)
    u = tl.where((k < r)[None, :], u, 0.0)  # an infinite gradient times the padding of A
    b = load_matrix(B + p * r * I, k, i, I, 1, r, I)  # [R, BI]
    low_rank = alpha * tl.dot(u.to(b.dtype), b, input_precision=PRECISION)
    if DROPOUT:
        low_rank = tl.where(keep(m, n, i0, N, I, seed, threshold, 0, STREAM, BI, ALIGNED), low_rank * scale, 0.0)
    store_rows(dx, acc + low_rank, m, n, i, N * I, I, rows_exist, I)


@triton.jit
def parameter_gradients(
    pid, grad, y, x, A, B, seed, order, first_slot, dweight, dbias, dA, dB, workspace, counters,
    M, N, I, O, P, r, g_m, g_n, g_o, x_m, x_n, x_i, alpha, threshold, scale, slope,
    HAS_INDEX: tl.constexpr, DROPOUT: tl.constexpr, ALIGNED: tl.constexpr, ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr, NEEDS_WEIGHT: tl.constexpr, NEEDS_BIAS: tl.constexpr,
    NEEDS_A: tl.constexpr, NEEDS_B: tl.constexpr, WEIGHT_SPLITS: tl.constexpr, FACTOR_SPLITS: tl.constexpr,
    BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """The roles of one layer's parameters, the longest first; nall/triton.py's Share counts their programs."""
    o_blocks, i_blocks = tl.cdiv(O, BO), tl.maximum(tl.cdiv(I, BI), 1)  # where there is no x, there is a db
    weight_end = o_blocks * i_blocks * WEIGHT_SPLITS if NEEDS_WEIGHT or NEEDS_BIAS else 0
    a_end = weight_end + (P * o_blocks * FACTOR_SPLITS if NEEDS_A else 0)
    # Each role has its own part of the workspace and of the counters.
    a_parts = workspace
    if WEIGHT_SPLITS > 1:
        a_parts += tl.cast(o_blocks, tl.int64) * (i_blocks * BI + 1) * WEIGHT_SPLITS * BO
    b_parts = a_parts
    if FACTOR_SPLITS > 1:
        b_parts += tl.cast(P, tl.int64) * o_blocks * FACTOR_SPLITS * BO * R
    a_counters = counters + o_blocks * (i_blocks + 1)
    b_counters = a_counters + P * o_blocks
    if NEEDS_WEIGHT or NEEDS_BIAS:
        if pid < weight_end:
            shared_gradients(
                pid, grad, y, x, dweight, dbias, workspace, counters, M, N, I, O, g_m, g_n, g_o, x_m, x_n, x_i, slope,
                ACTIVATION, PRECISION, NEEDS_WEIGHT, NEEDS_BIAS, WEIGHT_SPLITS, BM, BO, BI,
            )  # fmt: skip
    if NEEDS_A:
        if (pid >= weight_end) & (pid < a_end):
            gradient_of_a(
                pid - weight_end, grad, y, x, B, seed, order, first_slot, dA, a_parts, a_counters,
                M, N, I, O, r, g_m, g_n, g_o, x_m, x_n, x_i, alpha, threshold, scale, slope,
                HAS_INDEX, DROPOUT, ALIGNED, ACTIVATION, PRECISION, FACTOR_SPLITS, BM, BO, BI, R,
            )  # fmt: skip
    if NEEDS_B:
        if pid >= a_end:
            gradient_of_b(
                pid - a_end, grad, y, x, A, seed, order, first_slot, dB, b_parts, b_counters,
                M, N, I, O, r, g_m, g_n, g_o, x_m, x_n, x_i, alpha, threshold, scale, slope,
                HAS_INDEX, DROPOUT, ALIGNED, ACTIVATION, PRECISION, FACTOR_SPLITS, BM, BO, BI, R,
            )  # fmt: skip


@triton.jit(do_not_specialize=["seed", "parameter_programs"])
def backward(
    grad, y, x, weight, A, B, seed, node_index, order, first_slot, dx, dweight, dbias, dA, dB, workspace, counters,
    M, N, I, O, P, r, g_m, g_n, g_o, x_m, x_n, x_i, alpha, threshold, scale, slope, parameter_programs,
    HAS_INDEX: tl.constexpr, SEED_AT: tl.constexpr, DROPOUT: tl.constexpr, ALIGNED: tl.constexpr,
    ACTIVATION: tl.constexpr, PRECISION: tl.constexpr,
    NEEDS_X: tl.constexpr, NEEDS_WEIGHT: tl.constexpr, NEEDS_BIAS: tl.constexpr,
    NEEDS_A: tl.constexpr, NEEDS_B: tl.constexpr, WEIGHT_SPLITS: tl.constexpr, FACTOR_SPLITS: tl.constexpr,
    BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    if SEED_AT:
        seed = tl.load(seed)
    pid = tl.program_id(0)
    if pid < parameter_programs:
        parameter_gradients(
            pid, grad, y, x, A, B, seed, order, first_slot, dweight, dbias, dA, dB, workspace, counters,
            M, N, I, O, P, r, g_m, g_n, g_o, x_m, x_n, x_i, alpha, threshold, scale, slope,
            HAS_INDEX, DROPOUT, ALIGNED, ACTIVATION, PRECISION, NEEDS_WEIGHT, NEEDS_BIAS, NEEDS_A, NEEDS_B,
            WEIGHT_SPLITS, FACTOR_SPLITS, BM, BO, BI, R,
        )  # fmt: skip
    elif NEEDS_X:
        gradient_of_x(
            pid - parameter_programs, grad, y, weight, A, B, seed, node_index, dx,
            M, N, I, O, r, g_m, g_n, g_o, alpha, threshold, scale, slope,
            HAS_INDEX, DROPOUT, ALIGNED, ACTIVATION, PRECISION, BM, BO, BI, R,
        )  # fmt: skip
