// The rows' part of the NSP stack's backward: dL/dh from the last layer to the first, by the blocks that own the rows.
//
// A block of four warps owns units of 64 rows of one node, one after the other; a warp owns 16 of the rows. The
// gradient of a layer's products, and that of its input, stay in shared memory; between layers dL/dh goes through
// memory that the row's own warp alone uses. W comes from L2, 64 x 64 of it at a time. For the parameters the rows
// leave the gradient of each layer's products and the products' input, and of dL/dnorm one sum per block.
#pragma once

#include "nall_gradients.h"
#include "nsp_tiles.h"

namespace stlora::cuda {

template <typename T>
struct StackRowsLayout {
  int wide, wide_sums, rank, sums, block;  // row lengths of tiles of D and r columns, of D and r sums, of 64 columns
  bool twice;                              // are there two tiles of W?
  std::size_t a, b, g, ds, u, u_sums, weight, weight_tile, r_rms, norm_sums, bytes;

  __host__ __device__ StackRowsLayout(const Stack<T>& p, bool twice)
      : wide(row_length<T>(p.features)),
        wide_sums(row_length<float>(p.features)),
        rank(row_length<T>(p.rank)),
        sums(row_length<float>(p.rank)),
        block(row_length<T>(kColumns)),
        twice(twice) {
    a = 0;
    b = a + tile_bytes<T>(round_up(p.features, kFragment), rank);
    g = b + tile_bytes<T>(round_up(p.rank, kFragment), wide);
    ds = g + tile_bytes<T>(kRows, wide);
    u = ds + tile_bytes<float>(kRows, wide_sums);
    u_sums = u + tile_bytes<T>(kRows, rank);
    weight = u_sums + tile_bytes<float>(kRows, sums);
    weight_tile = tile_bytes<T>(kRows, block);
    r_rms = weight + weight_tile * (twice ? 2 : 1);
    norm_sums = r_rms + kRows * sizeof(float);
    bytes = norm_sums + std::size_t(p.depth) * p.features * sizeof(float);
  }
};

template <typename T>
struct StackBackward {
  Stack<T> stack;
  Strided grad;
  T* dh;                 // [M, N, D] or null
  T *inner_g, *inner_s;  // [L, M, N, D] each, or null: gradients of the products of layers, and their inputs
  float* chain;          // [M, N, D]
  float* norm_parts;     // [row_blocks, L, D]
  int64_t row_blocks;
  NspLayerGradients out[kMostLayers];
  Backward<T> layer;   // what the roles of the parameters know of every layer
  unsigned* counters;  // tickets, blocks that have done with the rows, blocks that have left

  // dL/dy at the last layer's end, and else what the layer above has left.
  __device__ float gradient(int64_t m, int64_t node, int layer_number, int c) const {
    if (layer_number + 1 < stack.depth) return Ptr<const float>(chain)[(m * stack.nodes + node) * stack.features + c];
    const Ptr<const T> g = static_cast<const T*>(grad.data);
    return wide(static_cast<T>(g[m * grad.row + node * grad.node + c * grad.feature]));
  }
};

// g, the gradient of the layer's products, into its tile and to where the parameters' gradients read it.
template <typename T>
__device__ void load_gradient(const StackBackward<T>& w, Tile<T> g, int layer, int64_t node, int64_t first) {
  const Stack<T>& p = w.stack;
  const int D = p.features, columns = round_up(D, kFragment), row = threadIdx.x / 32 * 16;
  const Ptr<T> inner = w.inner_g;
  for (int r = row; r < row + 16; ++r)
    for (int c = threadIdx.x % 32; c < columns; c += 32) {
      const bool exists = first + r < p.rows && c < D;
      const T value = rounded<T>(exists ? w.gradient(first + r, node, layer, c) : 0.0f);
      g.at[r * g.length + c] = value;
      if (exists && w.inner_g) inner[((layer * p.rows + first + r) * p.nodes + node) * D + c] = value;
    }
  __syncwarp();
}

// ds = g W + alpha (g A_p) B_p, the gradient of s, the input of the layer's products.
template <typename T>
__device__ void gradient_of_products(const Stack<T>& p, const StackRowsLayout<T>& l, Ptr<unsigned char> memory,
                                     int layer) {
  const int D = p.features, columns = round_up(D, kFragment), rank = int(p.layers[layer].rank);
  const int ranks = round_up(rank, kFragment), row = threadIdx.x / 32 * 16;
  const Tile<T> a{as<T>(memory + l.a), l.rank}, b{as<T>(memory + l.b), l.wide}, g{as<T>(memory + l.g), l.wide};
  const Tile<T> u{as<T>(memory + l.u), l.rank};
  const Tile<float> ds{as<float>(memory + l.ds), l.wide_sums}, u_sums{as<float>(memory + l.u_sums), l.sums};
  const auto weight_in = [&](int buffer) {
    return Tile<T>{as<T>(memory + l.weight + buffer * l.weight_tile), l.block};
  };
  const int blocks = (D + kColumns - 1) / kColumns;
  const auto width_of = [&](int block) { return D - block * kColumns < kColumns ? D - block * kColumns : kColumns; };
  low_rank_code<true>(g, row, a, u_sums, u, rank, columns);
  WarpProduct<T, kColumns / kFragment> product;
  pipelined(
      blocks * blocks, l.twice,
      [&](int64_t step, int buffer) {
        const int o = int(step) % blocks, i = int(step) / blocks;
        p.load_weight(layer, weight_in(buffer), kRows, o * kColumns, width_of(o), i * kColumns, width_of(i));
      },
      [&](int64_t step, int buffer) {
        const int o = int(step) % blocks, i = int(step) / blocks;
        const int fragments = round_up(width_of(i), kFragment) / kFragment;
        if (o == 0) {
          product = {};
          product.template add<false, true>(u, row, b, i * kColumns, fragments, ranks);
          product.scale(p.alpha);
        }
        product.template add<false, true>(Tile<T>{g.at + o * kColumns, g.length}, row, weight_in(buffer), 0, fragments,
                                          round_up(width_of(o), kFragment));
        if (o + 1 == blocks) product.store(Tile<float>{ds.at + i * kColumns, ds.length}, row, fragments);
      });
}

// ds becomes the gradient of what the norm has yielded; s is left for the parameters' gradients.
template <typename T>
__device__ void undo_sigma(const StackBackward<T>& w, Dropout dropout, Tile<float> ds, Ptr<const float> r_rms,
                           int layer, int64_t node, int64_t first) {
  const Stack<T>& p = w.stack;
  const int D = p.features, groups = (D + 3) / 4, row = threadIdx.x / 32 * 16;
  const Ptr<const T> norm = static_cast<const T*>(p.layers[layer].norm_weight);
  const Ptr<T> inner = w.inner_s;
  dropout.layer = layer;
  for (int e = threadIdx.x % 32; e < 16 * groups; e += 32) {
    const int r = row + e / groups, c0 = e % groups * 4;
    if (first + r >= p.rows) continue;
    const int64_t element = ((first + r) * p.nodes + node) * D + c0;
    const unsigned kept = dropout.on ? dropout.keeps(uint64_t(element)) : 0xfu;
    for (int i = 0; i < 4; ++i) {
      const int c = c0 + i;
      if (c >= D) break;
      const float value = p.input(first + r, node, layer, c) * r_rms[r] * wide(static_cast<T>(norm[c]));
      const float slope = kept >> i & 1 ? (value > 0 ? dropout.scale : dropout.scale * p.slope) : 0.0f;
      ds.at[r * ds.length + c] = ds.at[r * ds.length + c] * slope;
      if (w.inner_s)
        inner[(int64_t(layer) * p.rows * p.nodes) * D + element + i] = rounded<T>(kept >> i & 1 ? value * slope : 0.0f);
    }
  }
  __syncwarp();
}

// dL/dh = dL/dh' + (d w - u mean(d w u)) / rms, u = h / rms; d becomes d u, whose sum over rows is dL/dnorm.
template <typename T>
__device__ void undo_norm(const StackBackward<T>& w, Tile<float> ds, Ptr<const float> r_rms, int layer, int64_t node,
                          int64_t first) {
  const Stack<T>& p = w.stack;
  const int D = p.features, row = threadIdx.x / 32 * 16, lane = threadIdx.x % 32;
  const Ptr<const T> norm = static_cast<const T*>(p.layers[layer].norm_weight);
  const Ptr<float> chain = w.chain;
  const Ptr<T> dh = w.dh;
  for (int r = row; r < row + 16; ++r) {
    const int64_t m = first + r;
    if (m >= p.rows) break;  // as all lanes do
    const float inverse = r_rms[r];
    float dot = 0;
    for (int c = lane; c < D; c += 32) {
      const float unit = p.input(m, node, layer, c) * inverse;
      dot += ds.at[r * ds.length + c] * wide(static_cast<T>(norm[c])) * unit;
    }
    const float mean = p.sum_of_warp(dot) / D;
    for (int c = lane; c < D; c += 32) {
      const float unit = p.input(m, node, layer, c) * inverse, d = ds.at[r * ds.length + c];
      const float weight = wide(static_cast<T>(norm[c]));
      const float value = w.gradient(m, node, layer, c) + inverse * (d * weight - unit * mean);
      ds.at[r * ds.length + c] = d * unit;
      if (layer > 0)
        chain[(m * p.nodes + node) * D + c] = value;
      else if (w.dh)
        dh[(m * p.nodes + node) * D + c] = rounded<T>(value);
    }
  }
}

// The units `block`, `block` + row_blocks, ...
template <typename T>
__device__ void rows_backward(const StackBackward<T>& w, Ptr<unsigned char> memory, int64_t block) {
  const Stack<T>& p = w.stack;
  const StackRowsLayout<T> l(p, w.layer.twice);
  const Dropout dropout = p.dropout.here();
  const int D = p.features, row = threadIdx.x / 32 * 16;
  const int64_t tiles = (p.rows + kRows - 1) / kRows;
  const Tile<T> a{as<T>(memory + l.a), l.rank}, b{as<T>(memory + l.b), l.wide}, g{as<T>(memory + l.g), l.wide};
  const Tile<float> ds{as<float>(memory + l.ds), l.wide_sums};
  const Ptr<float> r_rms = as<float>(memory + l.r_rms), norm_sums = as<float>(memory + l.norm_sums);
  for (int e = threadIdx.x; e < p.depth * D; e += blockDim.x) norm_sums[e] = 0;
  for (int64_t unit = block; unit < p.units(); unit += w.row_blocks) {
    const int64_t node = unit / tiles, first = unit % tiles * kRows;
    const int rows = int(p.rows - first < kRows ? p.rows - first : kRows);
    for (int layer = p.depth - 1; layer >= 0; --layer) {
      p.load_factors(layer, node, a, b);
      load_gradient(w, g, layer, node, first);
      for (int r = row; r < row + 16; ++r) {
        if (r >= rows) break;
        const float inverse = p.inverse_rms([&](int c) { return p.input(first + r, node, layer, c); });
        if (threadIdx.x % 32 == 0) r_rms[r] = inverse;
      }
      arrive_copies();
      gradient_of_products(p, l, memory, layer);
      undo_sigma(w, dropout, ds, r_rms, layer, node, first);
      undo_norm(w, ds, r_rms, layer, node, first);
      __syncthreads();
      for (int c = threadIdx.x; c < D; c += blockDim.x) {
        float sum = norm_sums[layer * D + c];
        for (int r = 0; r < rows; ++r) sum += ds.at[r * ds.length + c];
        norm_sums[layer * D + c] = sum;
      }
      __syncthreads();
    }
  }
  const Ptr<float> parts = w.norm_parts;
  for (int e = threadIdx.x; e < p.depth * D; e += blockDim.x) parts[block * p.depth * D + e] = norm_sums[e];
}

}  // namespace stlora::cuda
