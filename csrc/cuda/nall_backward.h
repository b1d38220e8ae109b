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
  const auto g_in = [&](int buffer) { return Tile<T>{as<T>(memory + buffer * l.stage + l.narrow), l.block}; };
  const auto x_in = [&](int buffer) { return Tile<T>{as<T>(memory + buffer * l.stage + l.weight), l.block}; };
  const Tile<float> sums{as<float>(memory + l.sums), BackwardLayout<T>::sums_length(round_up(int(p.rank), kFragment))};
  const int row = threadIdx.x / 32 * 16, o_fragments = round_up(outs, kFragment) / kFragment;
  const auto rows_of = [&](int64_t step) {
    const int64_t left = end - (split * share + step * kRows);
    return int(left < kRows ? left : kRows);
  };
  if (!w.out.weight && i0 != 0) return;  // the first of these blocks has the bias
  WarpProduct<T, kColumns / kFragment> product;
  float column_sum = 0;
  pipelined((end - split * share + kRows - 1) / kRows, l.twice,
            [&](int64_t step, int buffer) {
              const int64_t q = split * share + step * kRows;
              const auto row_of = [&](int i) { return Row{(q + i) / p.nodes, (q + i) % p.nodes}; };
              w.load_g(g_in(buffer), rows_of(step), o0, outs, row_of);
              w.load_x(x_in(buffer), rows_of(step), i0, ins, row_of);
            },
            [&](int64_t step, int buffer) {
              const Tile<T> g = g_in(buffer);
              if (w.out.weight && row < o_fragments * kFragment)
                product.template add<true, true>(g, row, x_in(buffer), 0, round_up(ins, kFragment) / kFragment, kRows);
              if (int(threadIdx.x) < outs)
                for (int i = 0; i < rows_of(step); ++i)
                  column_sum += wide(static_cast<T>(g.at[i * g.length + threadIdx.x]));
            });
  if (row < o_fragments * kFragment) product.store(sums, row, round_up(ins, kFragment) / kFragment);
  const Ptr<unsigned> counters = w.counters;
  const Ptr<float> parts = w.parts;
  const int64_t size = kColumns * kColumns;
  if (w.out.weight)
    deliver<false>(
        sums, outs, ins, 1.0f, Ptr<T>(static_cast<T*>(w.out.weight)),
        [&](int o, int i) { return (o0 + o) * p.in + i0 + i; }, parts + tile * splits * size, counters + tile,
        int(split), int(splits));
  if (!w.out.bias || i0 != 0) return;
  __syncthreads();
  if (int(threadIdx.x) < outs) sums.at[threadIdx.x * sums.length] = column_sum;
  const int64_t o_tile = o0 / kColumns;
  deliver<false>(
      sums, outs, 1, 1.0f, Ptr<T>(static_cast<T*>(w.out.bias)), [&](int o, int) { return int64_t(o0 + o); },
      parts + (w.shares.bias_parts + o_tile * splits * kColumns), counters + (w.shares.o_blocks * i_blocks + o_tile),
      int(split), int(splits));
}

// Of dA_p (64 rows, G^T Z, Z = (mask * X) B_p^T) or, OF_B, of dB_p (64 columns, U^T (mask * X), U = G A_p).
template <bool OF_B, typename T>
__device__ void factor_gradient(const Backward<T>& w, const BackwardLayout<T>& l, Ptr<unsigned char> memory,
                                int64_t block) {
  const NallProblem& p = w.p;
  const int64_t blocks = OF_B ? w.shares.i_blocks : w.shares.o_blocks, splits = w.shares.factor_splits;
  const int64_t tile = block / splits, split = block % splits, adapter = tile / blocks, features = OF_B ? p.in : p.out;
  const int c0 = int(tile % blocks) * kColumns, rank = int(p.rank), ranks = round_up(rank, kFragment);
  const int width = int(features) - c0 < kColumns ? int(features) - c0 : kColumns;
  const auto x_in = [&](int buffer) {
    return Tile<T>{as<T>(memory + buffer * l.stage + (OF_B ? l.narrow : l.wide)), OF_B ? l.block : l.in};
  };
  const auto g_in = [&](int buffer) {
    return Tile<T>{as<T>(memory + buffer * l.stage + (OF_B ? l.wide : l.narrow)), OF_B ? l.out : l.block};
  };
  const Tile<T> a{as<T>(memory + l.a), l.rank}, b{as<T>(memory + l.b), l.in}, code{as<T>(memory + l.low), l.rank};
  const Tile<float> sums{as<float>(memory + l.sums), BackwardLayout<T>::sums_length(ranks)};
  const int row = threadIdx.x / 32 * 16, x_first = OF_B ? c0 : 0, x_columns = OF_B ? width : int(p.in);
  const bool has_columns = row < round_up(width, kFragment);
  const AdapterRows<T> mine(w, adapter, split);
  const auto rows_of = [&](int64_t step) {
    const int64_t left = mine.end - (mine.begin + step * kRows);
    return int(left < kRows ? left : kRows);
  };
  WarpProduct<T, kMostRank / kFragment> product;
  OF_B ? w.load_a(a, adapter) : w.load_b(b, adapter);
  pipelined((mine.end - mine.begin + kRows - 1) / kRows, l.twice,
            [&](int64_t step, int buffer) {
              const auto row_of = [&](int i) { return mine.row(mine.begin + step * kRows + i); };
              w.load_x(x_in(buffer), rows_of(step), x_first, x_columns, row_of);
              w.load_g(g_in(buffer), rows_of(step), OF_B ? 0 : c0, OF_B ? int(p.out) : width, row_of);
            },
            [&](int64_t step, int buffer) {
              const Tile<T> x = x_in(buffer), g = g_in(buffer);
              if (w.dropout.on) {
                drop(w.dropout, x, x, p.in, x_first, x_columns, [&](int i) {
                  const Row r = i < rows_of(step) ? mine.row(mine.begin + step * kRows + i) : Row{0, 0};
                  return r.m * p.nodes + r.n;
                });
                __syncthreads();
              }
              if constexpr (OF_B)
                low_rank_code<true>(g, row, a, sums, code, rank, round_up(int(p.out), kFragment));
              else
                low_rank_code<false>(x, row, b, sums, code, rank, round_up(int(p.in), kFragment));
              __syncthreads();
              if (has_columns) product.template add<true, true>(OF_B ? x : g, row, code, 0, ranks / kFragment, kRows);
            });
  if (has_columns) product.store(sums, row, ranks / kFragment);
  const Ptr<float> parts =
      Ptr<float>(w.parts) + ((OF_B ? w.shares.b_parts : w.shares.a_parts) + (adapter * features + c0) * rank * splits);
  const Ptr<unsigned> counter = Ptr<unsigned>(w.counters) + ((OF_B ? w.shares.b_counters : w.shares.a_counters) + tile);
  if constexpr (OF_B)
    deliver<true>(
        sums, rank, width, float(p.alpha), Ptr<T>(static_cast<T*>(w.out.B)),
        [&](int k, int i) { return (adapter * rank + k) * p.in + c0 + i; }, parts, counter, int(split), int(splits));
  else
    deliver<false>(
        sums, width, rank, float(p.alpha), Ptr<T>(static_cast<T*>(w.out.A)),
        [&](int o, int k) { return (adapter * p.out + c0 + o) * rank + k; }, parts, counter, int(split), int(splits));
}

// The three roles that share rows, in the grid's order.
template <typename T>
__device__ void parameter_gradients(const Backward<T>& w, const BackwardLayout<T>& l, Ptr<unsigned char> memory,
                                    int64_t block) {
  if (block < w.shares.weight_blocks) return weight_gradient(w, l, memory, block);
  block -= w.shares.weight_blocks;
  if (block < w.shares.a_blocks) return factor_gradient<false>(w, l, memory, block);
  factor_gradient<true>(w, l, memory, block - w.shares.a_blocks);
}

template <typename T>
__device__ void x_gradient(const Backward<T>& w, const BackwardLayout<T>& l, Ptr<unsigned char> memory, int64_t block) {
  const NallProblem& p = w.p;
  const int64_t tiles = (p.rows + kRows - 1) / kRows, node = block / tiles, first = block % tiles * kRows;
  const Ptr<const int64_t> index = p.node_index;
  const int64_t adapter = p.node_index ? static_cast<int64_t>(index[node]) : node;
  const int rows = int(p.rows - first < kRows ? p.rows - first : kRows);
  const int ranks = round_up(int(p.rank), kFragment), out = round_up(int(p.out), kFragment);
  const Tile<T> g{as<T>(memory + l.wide), l.out}, a{as<T>(memory + l.a), l.rank}, b{as<T>(memory + l.b), l.in};
  const Tile<T> u{as<T>(memory + l.low), l.rank};
  const Tile<float> sums{as<float>(memory + l.sums), BackwardLayout<T>::sums_length(ranks)};
  const auto weight_in = [&](int buffer) { return Tile<T>{as<T>(memory + buffer * l.stage + l.weight), l.block}; };
  const Ptr<const T> w_data = static_cast<const T*>(p.weight);
  const Ptr<T> dx = static_cast<T*>(w.out.x);
  const int row = threadIdx.x / 32 * 16;
  const auto width_of = [](int64_t size, int64_t block) {
    return int(size - block * kColumns < kColumns ? size - block * kColumns : kColumns);
  };
  w.load_g(g, rows, 0, int(p.out), [&](int i) { return Row{first + i, node}; });
  w.load_a(a, adapter);
  w.load_b(b, adapter);
  arrive_copies();
  low_rank_code<true>(g, row, a, sums, u, int(p.rank), out);
  WarpProduct<T, kColumns / kFragment> product;
  const int64_t o_blocks = w.shares.o_blocks;
  pipelined(
      w.shares.i_blocks * o_blocks, l.twice,
      [&](int64_t step, int buffer) {
        const int64_t o0 = step % o_blocks * kColumns, i0 = step / o_blocks * kColumns;
        const auto at = [&](int o) { return w_data + ((o0 + o) * p.in + i0); };
        const int outs = width_of(p.out, step % o_blocks), ins = width_of(p.in, step / o_blocks);
        w.w_aligned ? load_tile<true>(weight_in(buffer), kRows, outs, ins, 1, at)
                    : load_tile<false>(weight_in(buffer), kRows, outs, ins, 1, at);
      },
      [&](int64_t step, int buffer) {
        const int o0 = int(step % o_blocks) * kColumns, i0 = int(step / o_blocks) * kColumns;
        const int ins = width_of(p.in, step / o_blocks), fragments = round_up(ins, kFragment) / kFragment;
        product.template add<false, true>(Tile<T>{g.at + o0, g.length}, row, weight_in(buffer), 0, fragments,
                                          round_up(width_of(p.out, step % o_blocks), kFragment));
        if (step % o_blocks + 1 < o_blocks) return;
        {
          WarpProduct<T, kColumns / kFragment> low_rank;
          low_rank.template add<false, true>(u, row, b, i0, fragments, ranks);
          low_rank.scale(float(p.alpha));
          low_rank.store(sums, row, fragments);
        }
        __syncwarp();
        const int groups = round_up(ins, 4) / 4;
        if (w.dropout.on)
          for (int e = threadIdx.x % 32; e < 16 * groups; e += 32) {
            const int r = row + e / groups, c0 = e % groups * 4;
            const unsigned kept = w.dropout.keeps(uint64_t(((first + r) * p.nodes + node) * p.in + i0 + c0));
            for (int c = c0; c < c0 + 4; ++c) {
              const float low = sums.at[r * sums.length + c];
              sums.at[r * sums.length + c] = kept >> (c - c0) & 1 ? low * w.dropout.scale : 0.0f;
            }
          }
        __syncwarp();
        product.add(sums, row, fragments);
        __syncwarp();
        product.store(sums, row, fragments);
        product = {};
        __syncwarp();
        for (int e = threadIdx.x % 32; e < 16 * kColumns; e += 32) {
          const int r = row + e / kColumns, c = e % kColumns;
          if (r < rows && c < ins)
            dx[((first + r) * p.nodes + node) * p.in + i0 + c] = rounded<T>(sums.at[r * sums.length + c]);
        }
        __syncwarp();
      });
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kAtOnce) nall_backward_kernel(Backward<T> w) {
  STLORA_SHARED(memory);
  w.dropout = w.dropout.here();
  const BackwardLayout<T> l(w.p, w.twice);
  if (blockIdx.x < w.shares.blocks)
    parameter_gradients(w, l, memory, blockIdx.x);
  else
    x_gradient(w, l, memory, blockIdx.x - w.shares.blocks);
}

template <typename T>
const char* launch_nall_backward(const NallProblem& p, const Strided& grad, const void* y, const NallGradients& out,
                                 const Nodes& nodes, const Workspace& workspace, const Launch& on) {
  const BackwardLayout<T> layout = backward_layout<T>(p, on.device);
  const Shares s = shares(p, out, on.device);
  const int64_t blocks = s.blocks + (out.x ? p.nodes * ((p.rows + kRows - 1) / kRows) : 0);
  if (blocks == 0) return nullptr;
  const Backward<T> work(p, grad, y, out, nodes, workspace, s, Dropout(p.dropout_p, p.seed, on.seed_at, kLowRankStream),
                         layout.twice);
  return launch(nall_backward_kernel<T>, unsigned(blocks), kThreads, layout.bytes, on, work);
}

}  // namespace stlora::cuda
