// Backward of the NALL: one grid of four roles, each block of four warps owning a tile of one result.
//
//   dW, db  64 x 64 of [O, I] and a share of all rows: G^T X, and the column sums of G;
//   dA_p    64 rows of [O, r] of one adapter and a share of its rows: alpha G^T Z, Z = (mask * X) B_p^T;
//   dB_p    64 columns of [r, I] of one adapter and a share of its rows: alpha U^T (mask * X), U = G A_p;
//   dX      64 rows of one node: G W + alpha mask * (U B_p).
//
// Rows of G (the gradient before the activation, which is undone from y) and of X pass through shared memory 64 at a
// time; Z and U never leave it. Shares are added up by the last block to arrive, in order: the same bits from run to
// run.
#pragma once

#include "nall_gradients.h"

namespace stlora::cuda {

template <typename T>
__device__ void weight_gradient(const Backward<T>& w, const BackwardLayout<T>& l, Ptr<unsigned char> memory,
                                int64_t block) {
  const NallProblem& p = w.p;
  const int64_t i_blocks = w.shares.i_blocks, splits = w.shares.weight_splits;
  const int64_t tile = block / splits, split = block % splits, all = p.rows * p.nodes;
  const int o0 = int(tile / i_blocks) * kColumns, i0 = int(tile % i_blocks) * kColumns;
  const int outs = int(p.out) - o0 < kColumns ? int(p.out) - o0 : kColumns;
  const int ins = int(p.in) - i0 < kColumns ? int(p.in) - i0 : kColumns;
  const int64_t share = ((all + kRows - 1) / kRows + splits - 1) / splits * kRows;
  const int64_t end = (split + 1) * share < all ? (split + 1) * share : all;
  const Tile<T> g{as<T>(memory + l.narrow), l.block}, x{as<T>(memory + l.weight), l.block};
  const Tile<float> sums{as<float>(memory + l.sums), BackwardLayout<T>::sums_length(round_up(int(p.rank), kFragment))};
  const int row = threadIdx.x / 32 * 16, o_fragments = round_up(outs, kFragment) / kFragment;
  WarpProduct<T, kColumns / kFragment> product;
  float column_sum = 0;
  for (int64_t q = split * share; q < end; q += kRows) {
    const auto row_of = [&](int i) { return Row{(q + i) / p.nodes, (q + i) % p.nodes}; };
    const int rows = int(end - q < kRows ? end - q : kRows);
    w.load_g(g, rows, o0, outs, row_of);
    w.load_x(x, rows, i0, ins, row_of);
    arrive_copies();
    if (row < o_fragments * kFragment)
      product.template add<true, true>(g, row, x, 0, round_up(ins, kFragment) / kFragment, kRows);
    if (int(threadIdx.x) < outs)
      for (int i = 0; i < rows; ++i) column_sum += wide(static_cast<T>(g.at[i * g.length + threadIdx.x]));
    __syncthreads();
  }
  if (row < o_fragments * kFragment) product.store(sums, row, round_up(ins, kFragment) / kFragment);
  const Ptr<unsigned> counters = w.counters;
  const Ptr<float> parts = w.parts;
  const int64_t size = kColumns * kColumns;
  if (w.out.weight)
    deliver(
        sums, outs, ins, 1.0f, Ptr<T>(static_cast<T*>(w.out.weight)),
        [&](int o, int i) { return (o0 + o) * p.in + i0 + i; }, parts + tile * splits * size, counters + tile,
        int(split), int(splits));
  if (!w.out.bias || i0 != 0) return;
  __syncthreads();
  if (int(threadIdx.x) < outs) sums.at[threadIdx.x * sums.length] = column_sum;
  const int64_t o_tile = o0 / kColumns;
  deliver(
      sums, outs, 1, 1.0f, Ptr<T>(static_cast<T*>(w.out.bias)), [&](int o, int) { return int64_t(o0 + o); },
      parts + (w.shares.bias_parts + o_tile * splits * kColumns), counters + (w.shares.o_blocks * i_blocks + o_tile),
      int(split), int(splits));
}

template <typename T>
__device__ void a_gradient(const Backward<T>& w, const BackwardLayout<T>& l, Ptr<unsigned char> memory, int64_t block) {
  const NallProblem& p = w.p;
  const int64_t o_blocks = w.shares.o_blocks, splits = w.shares.factor_splits;
  const int64_t tile = block / splits, split = block % splits, adapter = tile / o_blocks;
  const int o0 = int(tile % o_blocks) * kColumns, outs = int(p.out) - o0 < kColumns ? int(p.out) - o0 : kColumns;
  const int ranks = round_up(int(p.rank), kFragment), in = round_up(int(p.in), kFragment);
  const Tile<T> x{as<T>(memory + l.x), l.in}, b{as<T>(memory + l.b), l.in}, z{as<T>(memory + l.low), l.rank};
  const Tile<T> g{as<T>(memory + l.narrow), l.block};
  const Tile<float> sums{as<float>(memory + l.sums), BackwardLayout<T>::sums_length(ranks)};
  const int row = threadIdx.x / 32 * 16, o_rows = round_up(outs, kFragment);
  const AdapterRows<T> mine(w, adapter, split);
  WarpProduct<T, kMostRank / kFragment> product;
  w.load_b(b, adapter);
  for (int64_t q = mine.begin; q < mine.end; q += kRows) {
    const auto row_of = [&](int i) { return mine.row(q + i); };
    const int rows = int(mine.end - q < kRows ? mine.end - q : kRows);
    w.load_x(x, rows, 0, int(p.in), row_of);
    w.load_g(g, rows, o0, outs, row_of);
    arrive_copies();
    if (w.dropout.on) {
      drop(w.dropout, x, x, p.in, 0, int(p.in), [&](int i) {
        const Row r = i < rows ? mine.row(q + i) : Row{0, 0};
        return r.m * p.nodes + r.n;
      });
      __syncthreads();
    }
    {
      WarpProduct<T, kMostRank / kFragment> low_rank;
      low_rank.add(x, row, b, 0, ranks / kFragment, in);
      low_rank.store(sums, row, ranks / kFragment);
    }
    keep_low_rank(sums, z, row, int(p.rank));
    __syncthreads();
    if (row < o_rows) product.template add<true, true>(g, row, z, 0, ranks / kFragment, kRows);
    __syncthreads();
  }
  if (mine.begin >= mine.end) arrive_copies();
  if (row < o_rows) product.store(sums, row, ranks / kFragment);
  deliver(
      sums, outs, int(p.rank), float(p.alpha), Ptr<T>(static_cast<T*>(w.out.A)),
      [&](int o, int k) { return (adapter * p.out + o0 + o) * p.rank + k; },
      Ptr<float>(w.parts) + (w.shares.a_parts + (adapter * p.out + o0) * p.rank * splits),
      Ptr<unsigned>(w.counters) + (w.shares.a_counters + tile), int(split), int(splits));
}

template <typename T>
__device__ void b_gradient(const Backward<T>& w, const BackwardLayout<T>& l, Ptr<unsigned char> memory, int64_t block) {
  const NallProblem& p = w.p;
  const int64_t i_blocks = w.shares.i_blocks, splits = w.shares.factor_splits;
  const int64_t tile = block / splits, split = block % splits, adapter = tile / i_blocks;
  const int i0 = int(tile % i_blocks) * kColumns, ins = int(p.in) - i0 < kColumns ? int(p.in) - i0 : kColumns;
  const int ranks = round_up(int(p.rank), kFragment), out = round_up(int(p.out), kFragment);
  const Tile<T> g{as<T>(memory + l.g), l.out}, a{as<T>(memory + l.a), l.rank}, u{as<T>(memory + l.low), l.rank};
  const Tile<T> x{as<T>(memory + l.narrow), l.block};
  const Tile<float> sums{as<float>(memory + l.sums), BackwardLayout<T>::sums_length(ranks)};
  const int row = threadIdx.x / 32 * 16;
  const bool has_columns = row < round_up(ins, kFragment);
  const AdapterRows<T> mine(w, adapter, split);
  // A warp owns 16 columns; of r there may be fewer than warps.
  WarpProduct<T, 1> products[kMostRank / kFragment];
  w.load_a(a, adapter);
  for (int64_t q = mine.begin; q < mine.end; q += kRows) {
    const auto row_of = [&](int i) { return mine.row(q + i); };
    const int rows = int(mine.end - q < kRows ? mine.end - q : kRows);
    w.load_g(g, rows, 0, int(p.out), row_of);
    w.load_x(x, rows, i0, ins, row_of);
    arrive_copies();
    if (w.dropout.on)
      drop(w.dropout, x, x, p.in, i0, ins, [&](int i) {
        const Row r = i < rows ? mine.row(q + i) : Row{0, 0};
        return r.m * p.nodes + r.n;
      });
    {
      WarpProduct<T, kMostRank / kFragment> low_rank;
      low_rank.template add<false, true>(g, row, a, 0, ranks / kFragment, out);
      low_rank.store(sums, row, ranks / kFragment);
    }
    keep_low_rank(sums, u, row, int(p.rank));
    __syncthreads();
    if (has_columns)
      for (int k = 0; k < kMostRank / kFragment; ++k) {
        if (k >= ranks / kFragment) break;
        products[k].template add<true, true>(u, k * kFragment, x, row, 1, kRows);
      }
    __syncthreads();
  }
  if (mine.begin >= mine.end) arrive_copies();
  // Ranks may be more rows than a tile of sums has: 64 at a time.
  for (int k0 = 0; k0 < ranks; k0 += kRows) {
    const int height = int(p.rank) - k0 < kRows ? int(p.rank) - k0 : kRows;
    if (has_columns)
      for (int k = 0; k < kMostRank / kFragment; ++k) {
        if (k * kFragment < k0 || k * kFragment >= k0 + kRows || k >= ranks / kFragment) continue;
        products[k].store(Tile<float>{sums.at + row, sums.length}, k * kFragment - k0, 1);
      }
    deliver(
        sums, height, ins, float(p.alpha), Ptr<T>(static_cast<T*>(w.out.B)),
        [&](int k, int i) { return (adapter * p.rank + k0 + k) * p.in + i0 + i; },
        Ptr<float>(w.parts) +
            (w.shares.b_parts + ((adapter * i_blocks + tile % i_blocks) * p.rank + k0) * kColumns * splits),
        Ptr<unsigned>(w.counters) + (w.shares.b_counters + tile * 2 + k0 / kRows), int(split), int(splits));
    __syncthreads();
  }
}

// The three roles that share rows, in the grid's order.
template <typename T>
__device__ void parameter_gradients(const Backward<T>& w, const BackwardLayout<T>& l, Ptr<unsigned char> memory,
                                    int64_t block) {
  if (block < w.shares.weight_blocks) return weight_gradient(w, l, memory, block);
  block -= w.shares.weight_blocks;
  if (block < w.shares.a_blocks) return a_gradient(w, l, memory, block);
  b_gradient(w, l, memory, block - w.shares.a_blocks);
}

template <typename T>
__device__ void x_gradient(const Backward<T>& w, const BackwardLayout<T>& l, Ptr<unsigned char> memory, int64_t block) {
  const NallProblem& p = w.p;
  const int64_t tiles = (p.rows + kRows - 1) / kRows, node = block / tiles, first = block % tiles * kRows;
  const Ptr<const int64_t> index = p.node_index;
  const int64_t adapter = p.node_index ? static_cast<int64_t>(index[node]) : node;
  const int rows = int(p.rows - first < kRows ? p.rows - first : kRows);
  const int ranks = round_up(int(p.rank), kFragment), out = round_up(int(p.out), kFragment);
  const Tile<T> g{as<T>(memory + l.g), l.out}, a{as<T>(memory + l.a), l.rank}, b{as<T>(memory + l.b), l.in};
  const Tile<T> u{as<T>(memory + l.low), l.rank}, weight{as<T>(memory + l.weight), l.block};
  const Tile<float> sums{as<float>(memory + l.sums), BackwardLayout<T>::sums_length(ranks)};
  const Tile<float> low_sums{as<float>(memory + l.low_sums), sums.length};
  const Ptr<const T> w_data = static_cast<const T*>(p.weight);
  const Ptr<T> dx = static_cast<T*>(w.out.x);
  const int row = threadIdx.x / 32 * 16;
  w.load_g(g, rows, 0, int(p.out), [&](int i) { return Row{first + i, node}; });
  w.load_a(a, adapter);
  w.load_b(b, adapter);
  arrive_copies();
  {
    WarpProduct<T, kMostRank / kFragment> low_rank;
    low_rank.template add<false, true>(g, row, a, 0, ranks / kFragment, out);
    low_rank.store(sums, row, ranks / kFragment);
  }
  keep_low_rank(sums, u, row, int(p.rank));
  for (int i0 = 0; i0 < p.in; i0 += kColumns) {
    const int ins = int(p.in) - i0 < kColumns ? int(p.in) - i0 : kColumns;
    const int fragments = round_up(ins, kFragment) / kFragment;
    {
      WarpProduct<T, kColumns / kFragment> product;
      for (int o0 = 0; o0 < p.out; o0 += kRows) {
        const int outs = int(p.out) - o0 < kRows ? int(p.out) - o0 : kRows;
        __syncthreads();
        const auto at = [&](int o) { return w_data + ((o0 + o) * p.in + i0); };
        w.w_aligned ? load_tile<true>(weight, kRows, outs, ins, 1, at)
                    : load_tile<false>(weight, kRows, outs, ins, 1, at);
        arrive_copies();
        product.template add<false, true>(Tile<T>{g.at + o0, g.length}, row, weight, 0, fragments,
                                          round_up(outs, kFragment));
      }
      product.store(sums, row, fragments);
    }
    {
      WarpProduct<T, kColumns / kFragment> product;
      product.template add<false, true>(u, row, b, i0, fragments, ranks);
      product.store(low_sums, row, fragments);
    }
    __syncwarp();
    for (int e = threadIdx.x % 32; e < 16 * kColumns; e += 32) {
      const int r = row + e / kColumns, c = e % kColumns;
      if (r >= rows || c >= ins) continue;
      const int64_t element = ((first + r) * p.nodes + node) * p.in + i0 + c;
      float low = float(p.alpha) * low_sums.at[r * low_sums.length + c];
      if (w.dropout.on) low = w.dropout.draw(uint64_t(element) / 4) >> element % 4 & 1 ? low * w.dropout.scale : 0.0f;
      dx[element] = rounded<T>(sums.at[r * sums.length + c] + low);
    }
    __syncwarp();
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) nall_backward_kernel(Backward<T> w) {
  STLORA_SHARED(memory);
  w.dropout = w.dropout.here();
  const BackwardLayout<T> l(w.p);
  if (blockIdx.x < w.shares.blocks)
    parameter_gradients(w, l, memory, blockIdx.x);
  else
    x_gradient(w, l, memory, blockIdx.x - w.shares.blocks);
}

template <typename T>
const char* launch_nall_backward(const NallProblem& p, const Strided& grad, const void* y, const NallGradients& out,
                                 const Nodes& nodes, const Workspace& workspace, const Launch& on) {
  const BackwardLayout<T> layout(p);
  const Shares s = shares(p, out, on.device);
  const int64_t blocks = s.blocks + (out.x ? p.nodes * ((p.rows + kRows - 1) / kRows) : 0);
  if (blocks == 0) return nullptr;
  const Backward<T> work(p, grad, y, out, nodes, workspace, s,
                         Dropout(p.dropout_p, p.seed, on.seed_at, kLowRankStream));
  return launch(nall_backward_kernel<T>, unsigned(blocks), kThreads, layout.bytes, on.stream, work);
}

}  // namespace stlora::cuda
