"""The forward kernels of the NSP stack in Triton.

In both a program owns a tile of rows of one node, all columns of it, through all layers. W comes from L2, as do the
node's A and B. h is read once; y, and the inputs of the layers for the backward pass, are written once.

narrow  The tile stays in registers, as a tuple of chunks of BD columns; s, the input of a layer's products, passes
        shared memory on its way to the tensor cores.
wide    The tile and s go through memory that the program alone uses, and that L2 holds until the next layer reads it;
        registers hold a block of columns and the low-rank code.
"""

import triton
import triton.language as tl

from stlora_kernels.ops import philox
from stlora_kernels.ops.triton_tiles import keep, load_matrix, load_rows, own_rows, pick, store_rows

STREAM = tl.constexpr(philox.STREAM_SIGMA)


@triton.jit
def load_chunks(base, m, n, stride_m, stride_n, stride_c, rows_exist, C, CHUNKS: tl.constexpr, BD: tl.constexpr):
    chunks = ()
    for b in tl.static_range(CHUNKS):
        c = b * BD + tl.arange(0, BD)
        chunks = chunks + (load_rows(base, m, n, c, stride_m, stride_n, stride_c, rows_exist, C).to(tl.float32),)
    return chunks  # CHUNKS x [rows, BD]


@triton.jit
def squares_of(chunks, CHUNKS: tl.constexpr):
    squares = tl.sum(chunks[0] * chunks[0], 1)
    for b in tl.static_range(1, CHUNKS):
        squares += tl.sum(chunks[b] * chunks[b], 1)
    return squares  # [rows]


@triton.jit
def load_input(layer, h, saved, m, n, c, M, D, h_m, h_n, h_d, saved_n, rows_exist, L: tl.constexpr):
    """Columns c of the input of a layer: of h for the first, else of ``saved [N, L-1, M, D]``."""
    if L == 1 or layer == 0:
        x = load_rows(h, m, n, c, h_m, h_n, h_d, rows_exist, D).to(tl.float32)
    else:
        below = saved + tl.cast(layer - 1, tl.int64) * M * D
        x = load_rows(below, m, n, c, D, saved_n, 1, rows_exist, D).to(tl.float32)
    return x  # [rows, columns]


@triton.jit
def inverse_rms(squares, rows_exist, D, eps):
    return tl.where(rows_exist, 1 / tl.sqrt_rn(squares / D + eps), 0.0)  # without eps, infinite for a row of zeros


@triton.jit
def sigma(
    h, r_rms, norm, m, n, c0, N, D, seed, threshold, scale, slope, layer,
    DROPOUT: tl.constexpr, ALIGNED: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Of one chunk: h over its rms, s = dropout(leaky_relu(that times norm)), ds over d(that times norm), norm."""
    c = c0 + tl.arange(0, BD)
    weight = tl.load(norm + c, mask=c < D, other=0.0).to(tl.float32)[None, :]
    unit = h * r_rms[:, None]
    slopes = tl.where(unit * weight > 0, 1.0, slope)
    if DROPOUT:
        kept = keep(m, n, c0, N, D, seed, threshold, layer, STREAM, BD, ALIGNED)
        slopes = tl.where(kept, slopes * scale, 0.0)
    s = unit * weight * slopes
    if DROPOUT:
        s = tl.where(kept, s, 0.0)  # an infinite h times 0
    return unit, s, slopes, weight


@triton.jit(do_not_specialize=["seed"])
def narrow(
    h, norms, weights, biases, As, Bs, seed, node_index, y, saved, M, N, D, ranks, h_m, h_n, h_d, saved_n,
    alpha, eps, threshold, scale, slope,
    L: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INDEX: tl.constexpr, SEED_AT: tl.constexpr, DROPOUT: tl.constexpr,
    ALIGNED: tl.constexpr, SAVE: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr, BD: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    m, n, rows_exist, p = own_rows(tl.program_id(0), M, node_index, HAS_INDEX, ROWS)
    k = tl.arange(0, R)
    if SEED_AT:
        seed = tl.load(seed)
    tile = load_chunks(h, m, n, h_m, h_n, h_d, rows_exist, D, CHUNKS, BD)
    for layer in tl.range(L, num_stages=1):
        weight, norm, r = pick(weights, layer), pick(norms, layer), pick(ranks, layer)
        A_p, B_p = pick(As, layer) + p * D * r, pick(Bs, layer) + p * r * D
        r_rms = inverse_rms(squares_of(tile, CHUNKS), rows_exist, D, eps)
        s, z = (), tl.zeros([ROWS, R], tl.float32)
        for b in tl.static_range(CHUNKS):
            _, wide, _, _ = sigma(
                tile[b], r_rms, norm, m, n, b * BD, N, D, seed, threshold, scale, slope, layer, DROPOUT, ALIGNED, BD
            )
            s = s + (wide.to(weight.dtype.element_ty),)
            b_t = load_matrix(B_p, b * BD + tl.arange(0, BD), k, 1, D, D, r)  # [BD, R]
            z = tl.dot(s[b], b_t, z, input_precision=PRECISION)
        z = tl.where((k < r)[None, :], z, 0.0).to(weight.dtype.element_ty)  # an infinite s times padding of B
        after = ()
        for b in tl.static_range(CHUNKS):
            o = b * BD + tl.arange(0, BD)
            acc = tile[b] + alpha * tl.dot(z, load_matrix(A_p, k, o, 1, r, r, D), input_precision=PRECISION)
            for c in tl.static_range(CHUNKS):
                w_t = load_matrix(weight, c * BD + tl.arange(0, BD), o, 1, D, D, D)  # [BD of i, BD of o]
                acc = tl.dot(s[c], w_t, acc, input_precision=PRECISION)
            if HAS_BIAS:
                acc += tl.load(pick(biases, layer) + o, mask=o < D, other=0.0).to(tl.float32)[None, :]
            if SAVE:
                if layer < L - 1:
                    inputs = saved + tl.cast(layer, tl.int64) * M * D
                    store_rows(inputs, acc, m, n, o, D, saved_n, rows_exist, D)
            after = after + (acc,)
        tile = after
    for b in tl.static_range(CHUNKS):
        store_rows(y, tile[b], m, n, b * BD + tl.arange(0, BD), N * D, D, rows_exist, D)


@triton.jit(do_not_specialize=["seed"])
def wide(
    h, norms, weights, biases, As, Bs, seed, node_index, y, saved, s_rows, M, N, D, ranks, h_m, h_n, h_d, saved_n,
    alpha, eps, threshold, scale, slope,
    L: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INDEX: tl.constexpr, SEED_AT: tl.constexpr, DROPOUT: tl.constexpr,
    ALIGNED: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, BD: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    m, n, rows_exist, p = own_rows(tl.program_id(0), M, node_index, HAS_INDEX, ROWS)
    k = tl.arange(0, R)
    if SEED_AT:
        seed = tl.load(seed)
    for layer in range(L):
        weight, norm, r = pick(weights, layer), pick(norms, layer), pick(ranks, layer)
        A_p, B_p = pick(As, layer) + p * D * r, pick(Bs, layer) + p * r * D
        squares = tl.zeros([ROWS], tl.float32)
        for i0 in range(0, D, BD):
            i = i0 + tl.arange(0, BD)
            x = load_input(layer, h, saved, m, n, i, M, D, h_m, h_n, h_d, saved_n, rows_exist, L)
            squares += tl.sum(x * x, 1)
        r_rms = inverse_rms(squares, rows_exist, D, eps)
        z = tl.zeros([ROWS, R], tl.float32)
        for i0 in range(0, D, BD):
            i = i0 + tl.arange(0, BD)
            x = load_input(layer, h, saved, m, n, i, M, D, h_m, h_n, h_d, saved_n, rows_exist, L)
            _, s, _, _ = sigma(
                x, r_rms, norm, m, n, i0, N, D, seed, threshold, scale, slope, layer, DROPOUT, ALIGNED, BD
            )  # fmt: skip
            s = s.to(weight.dtype.element_ty)
            store_rows(s_rows, s, m, n, i, N * D, D, rows_exist, D)
            z = tl.dot(s, load_matrix(B_p, i, k, 1, D, D, r), z, input_precision=PRECISION)
        z = tl.where((k < r)[None, :], z, 0.0).to(weight.dtype.element_ty)
        tl.debug_barrier()  # the products may read s with other threads
        for o0 in range(0, D, BD):
            o = o0 + tl.arange(0, BD)
            acc = alpha * tl.dot(z, load_matrix(A_p, k, o, 1, r, r, D), input_precision=PRECISION)
            for i0 in range(0, D, BD):
                i = i0 + tl.arange(0, BD)
                s = load_rows(s_rows, m, n, i, N * D, D, 1, rows_exist, D)
                acc = tl.dot(s, load_matrix(weight, i, o, 1, D, D, D), acc, input_precision=PRECISION)
            if HAS_BIAS:
                acc += tl.load(pick(biases, layer) + o, mask=o < D, other=0.0).to(tl.float32)[None, :]
            acc += load_input(layer, h, saved, m, n, o, M, D, h_m, h_n, h_d, saved_n, rows_exist, L)
            if layer == L - 1:
                store_rows(y, acc, m, n, o, N * D, D, rows_exist, D)
            else:
                store_rows(saved + tl.cast(layer, tl.int64) * M * D, acc, m, n, o, D, saved_n, rows_exist, D)
        tl.debug_barrier()  # as may the next layer its input, and it writes s anew
