// What the roles of the NALL's backward kernel share: where tiles stand, how rows are read, how parts are added up.
#pragma once

#include "nall_tiles.h"

namespace stlora::cuda {

template <typename T>
struct BackwardLayout {
  bool twice;                // are there two of the stage?
  int in, out, rank, block;  // row lengths of tiles of I, O, r and 64 columns
  std::size_t wide, narrow, weight, stage, a, b, low, sums, bytes;

  __host__ __device__ BackwardLayout(const NallProblem& p, bool twice)
      : twice(twice),
        in(row_length<T>(int(p.in))),
        out(row_length<T>(int(p.out))),
        rank(row_length<T>(int(p.rank))),
        block(row_length<T>(kColumns)) {
    const int ranks = round_up(int(p.rank), kFragment);
    wide = 0;                                                   // X or G
    narrow = wide + tile_bytes<T>(kRows, in > out ? in : out);  // 64 columns of G or X
    weight = narrow + tile_bytes<T>(kRows, block);              // 64 x 64 of W, or of X
    stage = weight + tile_bytes<T>(kRows, block);
    a = stage * (twice ? 2 : 1);
    b = a + tile_bytes<T>(round_up(int(p.out), kFragment), rank);
    low = b + tile_bytes<T>(ranks, in);  // Z or U
    sums = low + tile_bytes<T>(kRows, rank);
    bytes = sums + kRows * sums_length(ranks) * sizeof(float);
  }
  __host__ __device__ static int sums_length(int ranks) { return (ranks > kColumns ? ranks : kColumns) + 4; }
};

// Two buffers where they do not cost a block that would fit beside, one where they do.
inline bool worth_twice(std::size_t once, std::size_t twice, const Device& device) {
  return device.shared_memory / twice >= std::min<std::size_t>(kAtOnce, device.shared_memory / once);
}

template <typename T>
BackwardLayout<T> backward_layout(const NallProblem& p, const Device& device) {
  const BackwardLayout<T> once(p, false), twice(p, true);
  return worth_twice(once.bytes, twice.bytes, device) ? twice : once;
}

struct Row {
  int64_t m, n;
};

template <typename T>
struct Backward {
  NallProblem p;
  Strided grad;
  const void* y;
  NallGradients out;
  const int64_t *order, *first_slot;  // node slots by adapter, where there is a node_index
  float* parts;
  unsigned* counters;
  Shares shares;
  Dropout dropout;
  bool twice;                                       // is the stage double-buffered?
  bool x_aligned, g_aligned, w_aligned, a_aligned;  // 16 bytes at a time

  Backward(const NallProblem& p, const Strided& grad, const void* y, const NallGradients& out, const Nodes& nodes,
           const Workspace& workspace, const Shares& shares, const Dropout& dropout, bool twice)
      : p(p),
        grad(grad),
        y(y),
        out(out),
        order(nodes.order),
        first_slot(nodes.first_slot),
        parts(workspace.floats),
        counters(workspace.counters),
        shares(shares),
        dropout(dropout),
        twice(twice),
        x_aligned(in_whole_pieces<T>(p.x, p.in)),
        g_aligned(in_whole_pieces<T>(grad, p.out)),
        w_aligned(begins_at_16_bytes<T>(p.weight, p.in) && begins_at_16_bytes<T>(p.B, p.B_stride) &&
                  begins_at_16_bytes<T>(p.B, p.in)),
        a_aligned(begins_at_16_bytes<T>(p.A, p.rank) && begins_at_16_bytes<T>(p.A, p.A_stride)) {}

  // The columns [first, first + columns) of X, and of G, of `rows` rows; what is beyond is zero.
  template <typename RowOf>
  __device__ void load_x(Tile<T> to, int rows, int first, int columns, RowOf row_of) const {
    const Ptr<const T> x = static_cast<const T*>(p.x.data);
    const auto at = [&](int i) {
      const Row row = row_of(i);
      return x + (row.m * p.x.row + row.n * p.x.node + first * p.x.feature);
    };
    x_aligned ? load_tile<true>(to, kRows, rows, columns, 1, at)
              : load_tile<false>(to, kRows, rows, columns, p.x.feature, at);
  }

  template <typename RowOf>
  __device__ void load_g(Tile<T> to, int rows, int first, int columns, RowOf row_of) const {
    const Ptr<const T> g = static_cast<const T*>(grad.data);
    if (p.activation == Activation::none) {
      const auto at = [&](int i) {
        const Row row = row_of(i);
        return g + (row.m * grad.row + row.n * grad.node + first * grad.feature);
      };
      g_aligned ? load_tile<true>(to, kRows, rows, columns, 1, at)
                : load_tile<false>(to, kRows, rows, columns, grad.feature, at);
      return;
    }
    const Ptr<const T> y_rows = static_cast<const T*>(y);
    const int padded = round_up(columns, kFragment);
    for (int e = threadIdx.x; e < kRows * padded; e += blockDim.x) {
      const int i = e / padded, o = first + e % padded;
      float value = 0;
      if (i < rows && e % padded < columns) {
        const Row row = row_of(i);
        value = wide(static_cast<T>(g[row.m * grad.row + row.n * grad.node + o * grad.feature]));
        if (!(wide(static_cast<T>(y_rows[(row.m * p.nodes + row.n) * p.out + o])) > 0))
          value = p.activation == Activation::relu ? 0.0f : value * float(p.negative_slope);
      }
      to.at[i * to.length + e % padded] = rounded<T>(value);
    }
  }

  __device__ void load_a(Tile<T> to, int64_t adapter) const {
    const Ptr<const T> a = static_cast<const T*>(p.A);
    const auto at = [&](int row) { return a + (adapter * p.A_stride + row * p.rank); };
    const int rows = round_up(int(p.out), kFragment);
    a_aligned ? load_tile<true>(to, rows, int(p.out), int(p.rank), 1, at)
              : load_tile<false>(to, rows, int(p.out), int(p.rank), 1, at);
  }

  __device__ void load_b(Tile<T> to, int64_t adapter) const {
    const Ptr<const T> b = static_cast<const T*>(p.B);
    const auto at = [&](int row) { return b + (adapter * p.B_stride + row * p.in); };
    const int rows = round_up(int(p.rank), kFragment);
    w_aligned ? load_tile<true>(to, rows, int(p.rank), int(p.in), 1, at)
              : load_tile<false>(to, rows, int(p.rank), int(p.in), 1, at);
  }
};

// The tile's, or the TRANSPOSED tile's, `height` x `width` numbers: into `out` at once where nobody shares it; else
// into the block's part of the workspace, and the last block to arrive adds up all parts.
template <bool TRANSPOSED, typename T, typename Place>
__device__ void deliver(Tile<float> tile, int height, int width, float scale, Ptr<T> out, Place place, Ptr<float> parts,
                        Ptr<unsigned> counter, int split, int splits) {
  __syncthreads();
  const auto number = [&](int row, int column) -> float {
    return scale * tile.at[TRANSPOSED ? column * tile.length + row : row * tile.length + column];
  };
  if (splits == 1) {
    for (int e = threadIdx.x; e < height * width; e += blockDim.x)
      out[place(e / width, e % width)] = rounded<T>(number(e / width, e % width));
    return;
  }
  const int64_t size = int64_t(height) * width;
  for (int e = threadIdx.x; e < size; e += blockDim.x) parts[split * size + e] = number(e / width, e % width);
  __threadfence();
  __syncthreads();
  STLORA_SHARED(memory);
  const Ptr<unsigned> arrived = as<unsigned>(memory);  // all tiles have been read
  if (threadIdx.x == 0) arrived[0] = atomicAdd(counter, 1u);
  __syncthreads();
  const bool last = arrived[0] == unsigned(splits - 1);
  if (!last) return;
  __threadfence();
  for (int e = threadIdx.x; e < size; e += blockDim.x) {
    float sum = 0;
    for (int s = 0; s < splits; ++s) sum += parts[s * size + e];
    out[place(e / width, e % width)] = rounded<T>(sum);
  }
  if (threadIdx.x == 0) counter[0] = 0;  // as the next launch expects it
}

// What dA and dB have in common: a share [begin, end) of an adapter's rows, and where they stand.
template <typename T>
struct AdapterRows {
  int64_t first_slot, begin, end;
  const Backward<T>& w;

  __device__ AdapterRows(const Backward<T>& w, int64_t adapter, int64_t split) : w(w) {
    const Ptr<const int64_t> first = w.first_slot;
    first_slot = w.first_slot ? static_cast<int64_t>(first[adapter]) : adapter;
    const int64_t slots = w.first_slot ? static_cast<int64_t>(first[adapter + 1]) - first_slot : 1;
    const int64_t all = slots * w.p.rows, splits = w.shares.factor_splits;
    const int64_t share = ((all + kRows - 1) / kRows + splits - 1) / splits * kRows;
    begin = split * share;
    end = begin + share < all ? begin + share : all;
  }
  __device__ Row row(int64_t q) const {
    const int64_t slot = first_slot + q / w.p.rows;
    const Ptr<const int64_t> order = w.order;
    return {q % w.p.rows, w.order ? static_cast<int64_t>(order[slot]) : slot};
  }
};

}  // namespace stlora::cuda
