// What the forward and backward kernels of the NSP stack share: the stack as kernels know it, sigma, a node's factors.
#pragma once

#include "nall_tiles.h"

namespace stlora::cuda {

template <typename T>
struct Stack {
  int64_t rows, nodes;
  int features, depth, rank;  // the highest rank
  Strided h;
  const float* saved;  // [N, L-1, M, D]: the inputs of the layers after the first
  const int64_t* node_index;
  float alpha, eps, slope;
  Dropout dropout;
  bool aligned, a_aligned;       // W and B, and A, 16 bytes at a time
  NspLayer layers[kMostLayers];  // here, and not behind a pointer of the host's

  Stack(const NspProblem& p, const float* saved, const int64_t* seed_at)
      : rows(p.rows),
        nodes(p.nodes),
        features(int(p.features)),
        depth(int(p.depth)),
        rank(most_rank(p)),
        h(p.h),
        saved(saved),
        node_index(p.node_index),
        alpha(float(p.alpha)),
        eps(float(p.eps)),
        slope(float(p.negative_slope)),
        dropout(p.dropout_p, p.seed, seed_at, kSigmaStream),
        aligned(true),
        a_aligned(true) {
    for (int l = 0; l < depth; ++l) {
      layers[l] = p.layers[l];
      const NspLayer& layer = layers[l];
      aligned &= begins_at_16_bytes<T>(layer.weight, features) && begins_at_16_bytes<T>(layer.B, features) &&
                 begins_at_16_bytes<T>(layer.B, layer.B_stride);
      a_aligned &= begins_at_16_bytes<T>(layer.A, layer.rank) && begins_at_16_bytes<T>(layer.A, layer.A_stride);
    }
  }

  __host__ __device__ int64_t units() const { return nodes * ((rows + kRows - 1) / kRows); }  // of kRows rows of a node

  __device__ int64_t adapter(int64_t node) const {
    return node_index ? static_cast<int64_t>(Ptr<const int64_t>(node_index)[node]) : node;
  }

  __device__ int64_t saved_at(int64_t m, int64_t node, int layer) const {  // of the input of `layer`, which is not 0
    return ((node * (depth - 1) + layer - 1) * rows + m) * features;
  }

  __device__ float input(int64_t m, int64_t node, int layer, int c) const {
    if (layer > 0) return Ptr<const float>(saved)[saved_at(m, node, layer) + c];
    return wide(static_cast<T>(Ptr<const T>(static_cast<const T*>(h.data))[m * h.row + node * h.node + c * h.feature]));
  }

  // The sum of what the lanes of a warp hold.
  __device__ static float sum_of_warp(float value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
    return value;
  }

  // 1 / rms of a row whose elements are value(c), by one warp.
  template <typename Value>
  __device__ float inverse_rms(Value value) const {
    float squares = 0;
    for (int c = threadIdx.x % 32; c < features; c += 32) {
      const float v = value(c);
      squares += v * v;
    }
    return 1 / sqrtf(sum_of_warp(squares) / features + eps);
  }

  // The node's A and B of one layer, asynchronously.
  __device__ void load_factors(int layer_number, int64_t node, Tile<T> a, Tile<T> b) const {
    const NspLayer& layer = layers[layer_number];
    const int64_t p = adapter(node);
    const int rank = int(layer.rank), D = features;
    const Ptr<const T> A = static_cast<const T*>(layer.A), B = static_cast<const T*>(layer.B);
    const auto a_row = [&](int row) { return A + (p * layer.A_stride + row * rank); };
    const auto b_row = [&](int row) { return B + (p * layer.B_stride + int64_t(row) * D); };
    const int a_rows = round_up(D, kFragment), b_rows = round_up(rank, kFragment);
    a_aligned ? load_tile<true>(a, a_rows, D, rank, 1, a_row) : load_tile<false>(a, a_rows, D, rank, 1, a_row);
    aligned ? load_tile<true>(b, b_rows, rank, D, 1, b_row) : load_tile<false>(b, b_rows, rank, D, 1, b_row);
    __pipeline_commit();
  }

  // Of layer `layer`, rows [o, o + rows) and columns [i, i + columns) of W, asynchronously.
  __device__ void load_weight(int layer, Tile<T> to, int tile_rows, int o, int rows, int i, int columns) const {
    const Ptr<const T> W = static_cast<const T*>(layers[layer].weight);
    const auto w_row = [&](int row) { return W + (int64_t(o + row) * features + i); };
    aligned ? load_tile<true>(to, tile_rows, rows, columns, 1, w_row)
            : load_tile<false>(to, tile_rows, rows, columns, 1, w_row);
  }
};

}  // namespace stlora::cuda
