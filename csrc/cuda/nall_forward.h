// Forward of the NALL.
//
// A block of four warps owns (node, 64 rows) units, one after the other; a warp owns 16 of the rows. Shared memory
// holds the unit's rows of x, all of B_p and A_p, and W: all of it through all units where it fits, else 64 rows of it
// at a time. Where they fit twice, x, A_p and B_p of the next unit are on their way while this one is computed. z = B_p
// x and the 64 columns of y at hand pass through shared memory between the products; y is written once, x read once.
#pragma once

#include <algorithm>
#include <utility>

#include "nall_tiles.h"

namespace stlora::cuda {

// Where a block's shared memory goes, in bytes. The host asks for `bytes`, the kernel finds its tiles.
template <typename T>
struct ForwardLayout {
  int in, rank;  // row lengths of tiles of I and of r columns
  bool resident, twice;
  int weight_rows;
  std::size_t x, b, a, unit, dropped, weight, weight_tile, z, out, bytes;

  __host__ __device__ ForwardLayout(const NallProblem& p, bool resident, bool twice)
      : in(row_length<T>(int(p.in))), rank(row_length<T>(int(p.rank))), resident(resident), twice(twice) {
    const int ranks = round_up(int(p.rank), kFragment), outs = round_up(int(p.out), kFragment);
    weight_rows = resident ? outs : kColumns;
    x = 0;
    b = x + tile_bytes<T>(kRows, in);
    a = b + tile_bytes<T>(ranks, in);
    unit = a + tile_bytes<T>(round_up(outs, kColumns), rank);  // of x, B and A: twice where they are double-buffered
    dropped = unit * (twice ? 2 : 1);
    weight = dropped + (p.dropout_p > 0 ? tile_bytes<T>(kRows, in) : 0);
    weight_tile = tile_bytes<T>(weight_rows, in);
    z = weight + weight_tile * (twice && !resident ? 2 : 1);
    out = z + tile_bytes<T>(kRows, rank);
    bytes = out + kRows * out_length(ranks) * sizeof(float);
  }
  __host__ __device__ static int out_length(int ranks) { return (ranks > kColumns ? ranks : kColumns) + 4; }
};

template <typename T, bool ALIGNED>
__device__ void load_unit(const NallProblem& p, const ForwardLayout<T>& l, Ptr<unsigned char> to, int64_t unit,
                          bool a_aligned) {
  const int64_t tiles = (p.rows + kRows - 1) / kRows, node = unit / tiles, first = unit % tiles * kRows;
  const int64_t adapter = p.node_index ? static_cast<int64_t>(Ptr<const int64_t>(p.node_index)[node]) : node;
  const int rows = int(p.rows - first < kRows ? p.rows - first : kRows), in = int(p.in), rank = int(p.rank);
  const Ptr<const T> x = static_cast<const T*>(p.x.data), b = static_cast<const T*>(p.B),
                     a = static_cast<const T*>(p.A);
  load_tile<ALIGNED>(Tile<T>{as<T>(to + l.x), l.in}, kRows, rows, in, p.x.feature,
                     [&](int row) { return x + ((first + row) * p.x.row + node * p.x.node); });
  load_tile<ALIGNED>(Tile<T>{as<T>(to + l.b), l.in}, round_up(rank, kFragment), rank, in, 1,
                     [&](int row) { return b + (adapter * p.B_stride + row * p.in); });
  const auto a_row = [&](int row) { return a + (adapter * p.A_stride + row * p.rank); };
  const Tile<T> a_tile{as<T>(to + l.a), l.rank};
  const int a_rows = round_up(int(p.out), kColumns);
  if (ALIGNED && a_aligned) {
    load_tile<true>(a_tile, a_rows, int(p.out), rank, 1, a_row);
  } else {
    load_tile<false>(a_tile, a_rows, int(p.out), rank, 1, a_row);
  }
  __pipeline_commit();
}

template <typename T, bool ALIGNED>
__device__ void load_weight(const NallProblem& p, Tile<T> to, int rows, int first) {
  const Ptr<const T> weight = static_cast<const T*>(p.weight);
  load_tile<ALIGNED>(to, rows, int(p.out) - first, int(p.in), 1,
                     [&](int row) { return weight + (first + row) * p.in; });
}

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(kThreads, kAtOnce)
    nall_forward_kernel(NallProblem p, Dropout given, void* y_data, bool resident, bool twice, bool a_aligned) {
  STLORA_SHARED(memory);
  const ForwardLayout<T> l(p, resident, twice);
  const Dropout dropout = given.here();
  const auto weight_in = [&](int buffer) { return Tile<T>{as<T>(memory + l.weight + buffer * l.weight_tile), l.in}; };
  const Tile<T> dropped{as<T>(memory + l.dropped), l.in};
  const Tile<T> z{as<T>(memory + l.z), l.rank};
  const int ranks = round_up(int(p.rank), kFragment), in = round_up(int(p.in), kFragment), out = int(p.out);
  const Tile<float> sums{as<float>(memory + l.out), l.out_length(ranks)};
  const Ptr<T> y = static_cast<T*>(y_data);
  const Ptr<const T> bias = static_cast<const T*>(p.bias);
  const int64_t tiles = (p.rows + kRows - 1) / kRows, units = p.nodes * tiles;
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
  const float alpha = float(p.alpha), slope = float(p.negative_slope);

  if (resident) load_weight<T, ALIGNED>(p, weight_in(0), l.weight_rows, 0);
  if (blockIdx.x < units) load_unit<T, ALIGNED>(p, l, memory, blockIdx.x, a_aligned);
  int buffer = 0;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const Ptr<unsigned char> here = memory + buffer * l.unit;
    const bool more = unit + gridDim.x < units;
    if (twice && more) {
      buffer ^= 1;
      load_unit<T, ALIGNED>(p, l, memory + buffer * l.unit, unit + gridDim.x, a_aligned);
      __pipeline_wait_prior(1);
    } else {
      __pipeline_wait_prior(0);
    }
    __syncthreads();
    const Tile<T> x{as<T>(here + l.x), l.in}, b{as<T>(here + l.b), l.in}, a{as<T>(here + l.a), l.rank};
    const int64_t node = unit / tiles, first = unit % tiles * kRows;
    if (dropout.on) {
      drop(dropout, x, dropped, p.in, 0, int(p.in), [&](int row) { return (first + row) * p.nodes + node; });
      __syncthreads();
    }
    low_rank_code<false>(dropout.on ? dropped : x, row, b, sums, z, int(p.rank), in);
    const auto columns_of_y = [&](int o0, Tile<T> weight, int weight_row) {
      const int columns = round_up(out - o0 < kColumns ? out - o0 : kColumns, kFragment) / kFragment;
      {
        WarpProduct<T, kColumns / kFragment> product;
        product.add(z, row, a, o0, columns, ranks);
        product.scale(alpha);
        product.add(x, row, weight, weight_row, columns, in);
        product.store(sums, row, columns);
      }
      __syncwarp();
      for (int e = lane; e < 16 * kColumns; e += 32) {
        const int r = row + e / kColumns, o = o0 + e % kColumns;
        if (first + r >= p.rows || o >= out) continue;
        const float sum = sums.at[r * sums.length + (o - o0)] + (bias ? wide(static_cast<T>(bias[o])) : 0.0f);
        y[((first + r) * p.nodes + node) * p.out + o] = rounded<T>(activated(sum, p.activation, slope));
      }
      __syncwarp();
    };
    if (resident)
      for (int o0 = 0; o0 < out; o0 += kColumns) columns_of_y(o0, weight_in(0), o0);
    else
      pipelined(
          (out + kColumns - 1) / kColumns, twice,
          [&](int64_t step, int tile) { load_weight<T, ALIGNED>(p, weight_in(tile), kColumns, int(step) * kColumns); },
          [&](int64_t step, int tile) { columns_of_y(int(step) * kColumns, weight_in(tile), 0); });
    __syncthreads();  // before the next unit's tiles take the place of these
    if (!twice && more) load_unit<T, ALIGNED>(p, l, memory, unit + gridDim.x, a_aligned);
  }
}

// The widest layout that a device has room for; null bytes where there is none.
template <typename T>
ForwardLayout<T> forward_layout(const NallProblem& p, const Device& device) {
  for (const auto& [resident, twice] : {std::pair{true, true}, {true, false}, {false, true}, {false, false}}) {
    const ForwardLayout<T> layout(p, resident, twice);
    if (layout.bytes <= device.shared_memory) return layout;
  }
  ForwardLayout<T> none(p, false, false);
  none.bytes = 0;
  return none;
}

template <typename T>
const char* launch_nall_forward(const NallProblem& p, void* y, const Launch& on) {
  const ForwardLayout<T> layout = forward_layout<T>(p, on.device);
  const int64_t units = p.nodes * ((p.rows + kRows - 1) / kRows);
  if (units == 0 || p.out == 0) return nullptr;
  const bool aligned =
      in_whole_pieces<T>(p.x, p.in) && begins_at_16_bytes<T>(p.weight) && begins_at_16_bytes<T>(p.B, p.B_stride);
  const bool a_aligned = begins_at_16_bytes<T>(p.A, p.rank) && begins_at_16_bytes<T>(p.A, p.A_stride);
  // As many blocks as fit the machine at once: each keeps W through its units.
  const int64_t at_once = on.device.multiprocessors * std::max<int64_t>(1, on.device.shared_memory / layout.bytes);
  return launch(aligned ? nall_forward_kernel<T, true> : nall_forward_kernel<T, false>,
                unsigned(std::min(units, at_once)), kThreads, layout.bytes, on, p,
                Dropout(p.dropout_p, p.seed, on.seed_at, kLowRankStream), y, layout.resident, layout.twice, a_aligned);
}

}  // namespace stlora::cuda
