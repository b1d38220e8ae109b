"""The backward kernel of the NSP stack in Triton: one grid of three phases.

Programs take their place in the grid by a ticket, so that who waits for a phase waits for programs that run already.

rows        own a tile of rows of one node, and carry dL/dh from the last layer to the first: NARROW rows in registers,
            as a tuple of chunks of BD columns, wide ones through memory that the program alone uses and L2 holds. Of
            every layer they leave the gradient of its NALL's output and its input s, both in the type of W, and the
            column sums of a tile for dnorm.
parameters  wait for all rows, then do for every layer what NALL's backward pass does, on what the rows have left.
norms       wait likewise, and add up the column sums, in order.

Everything but the inputs of the layers is recomputed.
"""

import triton
import triton.language as tl

from stlora_kernels.ops.nall.triton_kernels import parameter_gradients
from stlora_kernels.ops.nsp.triton_kernels import inverse_rms, load_chunks, load_input, sigma, squares_of
from stlora_kernels.ops.triton_tiles import load_matrix, load_rows, own_rows, pick, publish, store_rows


@triton.jit
def through_sigma(
    ds, h, r_rms, u, norm, B_p, s_out, sums, m, n, c0, rows_exist, N, D, r, alpha, seed, threshold, scale, slope, layer,
    DROPOUT: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr, BD: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Of one chunk, from ds = G W: dL/d(h over its rms), and its row sums along h over its rms.

    Leaves s and a tile's part of dnorm.
    """
    i, k = c0 + tl.arange(0, BD), tl.arange(0, R)
    unit, s, slopes, norm_weight = sigma(
        h, r_rms, norm, m, n, c0, N, D, seed, threshold, scale, slope, layer, DROPOUT, ALIGNED, BD
    )
    store_rows(s_out, s, m, n, i, N * D, D, rows_exist, D)
    ds = (ds + alpha * tl.dot(u, load_matrix(B_p, k, i, D, 1, r, D), input_precision=PRECISION)) * slopes
    tl.store(sums + i, tl.sum(ds * unit, 0), mask=i < D)
    ds *= norm_weight
    return ds, tl.sum(ds * unit, 1)


@triton.jit
def narrow_rows(
    job, p, m, n, rows_exist, grad, h, saved, norms, weights, As, Bs, seed, dh, inner_g, inner_s, norm_parts,
    M, N, D, jobs, ranks, g_m, g_n, g_d, h_m, h_n, h_d, saved_n, alpha, eps, threshold, scale, slope,
    L: tl.constexpr, DROPOUT: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, CHUNKS: tl.constexpr, BD: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    k = tl.arange(0, R)
    g = load_chunks(grad, m, n, g_m, g_n, g_d, rows_exist, D, CHUNKS, BD)
    for above in tl.range(L, num_stages=1):
        layer = tl.cast(L - 1 - above, tl.int64)
        weight, norm, r = pick(weights, layer), pick(norms, layer), pick(ranks, layer)
        A_p, B_p = pick(As, layer) + p * D * r, pick(Bs, layer) + p * r * D
        left = layer * M * N * D  # where a layer's rows begin in what is left to the other phases
        low, u = (), tl.zeros([BM, R], tl.float32)
        for b in tl.static_range(CHUNKS):
            o = b * BD + tl.arange(0, BD)
            low = low + (g[b].to(weight.dtype.element_ty),)
            store_rows(inner_g + left, low[b], m, n, o, N * D, D, rows_exist, D)
            u = tl.dot(low[b], load_matrix(A_p, o, k, r, 1, D, r), u, input_precision=PRECISION)
        u = tl.where((k < r)[None, :], u, 0.0).to(weight.dtype.element_ty)
        tile = ()
        for b in tl.static_range(CHUNKS):
            c = b * BD + tl.arange(0, BD)
            tile = tile + (load_input(layer, h, saved, m, n, c, M, D, h_m, h_n, h_d, saved_n, rows_exist, L),)
        r_rms = inverse_rms(squares_of(tile, CHUNKS), rows_exist, D, eps)
        inward, along = (), tl.zeros([BM], tl.float32)  # along: what of the gradient the norm takes away
        for b in tl.static_range(CHUNKS):
            ds, i = tl.zeros([BM, BD], tl.float32), b * BD + tl.arange(0, BD)
            for c in tl.static_range(CHUNKS):
                w = load_matrix(weight, c * BD + tl.arange(0, BD), i, D, 1, D, D)  # [BD of o, BD of i]
                ds = tl.dot(low[c], w, ds, input_precision=PRECISION)
            ds, part = through_sigma(
                ds, tile[b], r_rms, u, norm, B_p, inner_s + left, norm_parts + (layer * jobs + job) * D, m, n, b * BD,
                rows_exist, N, D, r, alpha, seed, threshold, scale, slope, layer, DROPOUT, ALIGNED, PRECISION, BD, R,
            )  # fmt: skip
            inward, along = inward + (ds,), along + part
        before = ()
        for b in tl.static_range(CHUNKS):
            ds = inward[b] - tile[b] * (r_rms * along / D)[:, None]
            before = before + (g[b] + ds * r_rms[:, None],)
        g = before
    for b in tl.static_range(CHUNKS):
        store_rows(dh, g[b], m, n, b * BD + tl.arange(0, BD), N * D, D, rows_exist, D)


@triton.jit
def wide_rows(
    job, p, m, n, rows_exist, grad, h, saved, norms, weights, As, Bs, seed, dh, inner_g, inner_s, norm_parts,
    chain, inward,
    M, N, D, jobs, ranks, g_m, g_n, g_d, h_m, h_n, h_d, saved_n, alpha, eps, threshold, scale, slope,
    L: tl.constexpr, DROPOUT: tl.constexpr, ALIGNED: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BD: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    k = tl.arange(0, R)
    for c0 in range(0, D, BD):  # the gradient that the layers hand down
        c = c0 + tl.arange(0, BD)
        store_rows(chain, load_rows(grad, m, n, c, g_m, g_n, g_d, rows_exist, D), m, n, c, N * D, D, rows_exist, D)
    for above in range(L):
        layer = tl.cast(L - 1 - above, tl.int64)
        weight, norm, r = pick(weights, layer), pick(norms, layer), pick(ranks, layer)
        A_p, B_p = pick(As, layer) + p * D * r, pick(Bs, layer) + p * r * D
        left = layer * M * N * D  # where a layer's rows begin in what is left to the other phases
        tl.debug_barrier()  # other threads may have stored the chain
        u, squares = tl.zeros([BM, R], tl.float32), tl.zeros([BM], tl.float32)
        for o0 in range(0, D, BD):
            o = o0 + tl.arange(0, BD)
            low = load_rows(chain, m, n, o, N * D, D, 1, rows_exist, D).to(weight.dtype.element_ty)
            store_rows(inner_g + left, low, m, n, o, N * D, D, rows_exist, D)
            u = tl.dot(low, load_matrix(A_p, o, k, r, 1, D, r), u, input_precision=PRECISION)
            x = load_input(layer, h, saved, m, n, o, M, D, h_m, h_n, h_d, saved_n, rows_exist, L)
            squares += tl.sum(x * x, 1)
        u = tl.where((k < r)[None, :], u, 0.0).to(weight.dtype.element_ty)
        r_rms = inverse_rms(squares, rows_exist, D, eps)
        along = tl.zeros([BM], tl.float32)  # what of the gradient the norm takes away
        tl.debug_barrier()  # as they have the gradient in the type of W
        for c0 in range(0, D, BD):
            i = c0 + tl.arange(0, BD)
            ds = tl.zeros([BM, BD], tl.float32)
            for o0 in range(0, D, BD):
                o = o0 + tl.arange(0, BD)
                low = load_rows(inner_g + left, m, n, o, N * D, D, 1, rows_exist, D)
                ds = tl.dot(low, load_matrix(weight, o, i, D, 1, D, D), ds, input_precision=PRECISION)
            x = load_input(layer, h, saved, m, n, i, M, D, h_m, h_n, h_d, saved_n, rows_exist, L)
            ds, part = through_sigma(
                ds, x, r_rms, u, norm, B_p, inner_s + left, norm_parts + (layer * jobs + job) * D, m, n, c0,
                rows_exist, N, D, r, alpha, seed, threshold, scale, slope, layer, DROPOUT, ALIGNED, PRECISION, BD, R,
            )  # fmt: skip
            store_rows(inward, ds, m, n, i, N * D, D, rows_exist, D)
            along += part
        tl.debug_barrier()
        for c0 in range(0, D, BD):
            i = c0 + tl.arange(0, BD)
            x = load_input(layer, h, saved, m, n, i, M, D, h_m, h_n, h_d, saved_n, rows_exist, L)
            ds = load_rows(inward, m, n, i, N * D, D, 1, rows_exist, D) - x * (r_rms * along / D)[:, None]
            g = load_rows(chain, m, n, i, N * D, D, 1, rows_exist, D) + ds * r_rms[:, None]
            if layer == 0:
                store_rows(dh, g, m, n, i, N * D, D, rows_exist, D)
            else:
                store_rows(chain, g, m, n, i, N * D, D, rows_exist, D)


@triton.jit
def norm_gradient(job, dnorms, norm_parts, jobs, D, BM: tl.constexpr, BI: tl.constexpr):
    blocks = tl.cdiv(D, BI)
    layer, c = job // blocks, job % blocks * BI + tl.arange(0, BI)
    parts = norm_parts + tl.cast(layer, tl.int64) * jobs * D
    acc = tl.zeros([BI], tl.float32)
    for q0 in range(0, jobs, BM):
        acc += tl.sum(load_matrix(parts, q0 + tl.arange(0, BM), c, D, 1, jobs, D), 0)
    dnorm = pick(dnorms, layer)
    tl.store(dnorm + c, acc.to(dnorm.dtype.element_ty), mask=c < D)


@triton.jit(do_not_specialize=["seed", "jobs", "layer_programs", "layer_room", "layer_counters"])
def backward(
    grad, h, saved, norms, weights, As, Bs, seed, node_index, order, first_slot,
    dh, dnorms, dweights, dbiases, dAs, dBs, inner_g, inner_s, norm_parts, chain, workspace, counters,
    M, N, D, P, ranks, g_m, g_n, g_d, h_m, h_n, h_d, saved_n, alpha, eps, threshold, scale, slope,
    jobs, layer_programs, layer_room, layer_counters,
    L: tl.constexpr, HAS_INDEX: tl.constexpr, SEED_AT: tl.constexpr, DROPOUT: tl.constexpr, ALIGNED: tl.constexpr,
    NARROW: tl.constexpr, PRECISION: tl.constexpr,
    NEEDS_NORM: tl.constexpr, NEEDS_WEIGHT: tl.constexpr, NEEDS_BIAS: tl.constexpr,
    NEEDS_A: tl.constexpr, NEEDS_B: tl.constexpr, WEIGHT_SPLITS: tl.constexpr, FACTOR_SPLITS: tl.constexpr,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr, BD: tl.constexpr,
    BM: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    if SEED_AT:
        seed = tl.load(seed)
    ticket = tl.atomic_add(counters, 1)
    if ticket < jobs:
        m, n, rows_exist, p = own_rows(ticket, M, node_index, HAS_INDEX, ROWS)
        if NARROW:
            narrow_rows(
                ticket, p, m, n, rows_exist, grad, h, saved, norms, weights, As, Bs, seed, dh,
                inner_g, inner_s, norm_parts,
                M, N, D, jobs, ranks, g_m, g_n, g_d, h_m, h_n, h_d, saved_n, alpha, eps, threshold, scale, slope,
                L, DROPOUT, ALIGNED, PRECISION, ROWS, CHUNKS, BD, R,
            )  # fmt: skip
        else:
            wide_rows(
                ticket, p, m, n, rows_exist, grad, h, saved, norms, weights, As, Bs, seed, dh,
                inner_g, inner_s, norm_parts, chain, chain + tl.cast(M, tl.int64) * N * D,
                M, N, D, jobs, ranks, g_m, g_n, g_d, h_m, h_n, h_d, saved_n, alpha, eps, threshold, scale, slope,
                L, DROPOUT, ALIGNED, PRECISION, ROWS, BD, R,
            )  # fmt: skip
        publish()
        tl.atomic_add(counters + 1, 1, sem="release")
    else:
        while tl.atomic_add(counters + 1, 0, sem="acquire") < jobs:
            pass
        tl.debug_barrier()
        job = ticket - jobs
        if job < L * layer_programs:
            of = tl.cast(job // layer_programs, tl.int64)
            g, s = inner_g + of * M * N * D, inner_s + of * M * N * D
            dweight, dA, dB = pick(dweights, of), pick(dAs, of), pick(dBs, of)
            dbias = pick(dbiases, of) if NEEDS_BIAS else dweight
            parameter_gradients(
                job % layer_programs, g, g, s, pick(As, of), pick(Bs, of), 0, order, first_slot,
                dweight, dbias, dA, dB, workspace + of * layer_room, counters + 2 + of * layer_counters,
                M, N, D, D, P, pick(ranks, of), N * D, D, 1, N * D, D, 1, alpha, 0, 1.0, slope,
                HAS_INDEX, False, False, "none", PRECISION, NEEDS_WEIGHT, NEEDS_BIAS, NEEDS_A, NEEDS_B,
                WEIGHT_SPLITS, FACTOR_SPLITS, BM, BO, BI, R,
            )  # fmt: skip
        elif NEEDS_NORM:
            norm_gradient(job - L * layer_programs, dnorms, norm_parts, jobs, D, BM, BI)
