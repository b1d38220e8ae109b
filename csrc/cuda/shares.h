// How blocks share the gradients of a layer, and of a stack: host arithmetic that kernels read.
#pragma once

#include <algorithm>

#include "stlora/cuda.h"

namespace stlora::cuda {

// Rows of a tile, columns of a tile, threads of a block; ranks and features beyond have no kernel, nor have deeper
// stacks.
constexpr int kRows = 64, kColumns = 64, kThreads = 128, kMostRank = 128, kMostLayers = 16, kMostFeatures = 1 << 16;

// Blocks, parts and counters of the three roles that share rows. A part is a tile of 64 x 64, or 64 x r, floats.
struct Shares {
  int64_t weight_blocks, a_blocks, b_blocks, blocks;  // of the grid, in this order, and in all
  int64_t o_blocks, i_blocks;                         // tiles of O and of I columns, one at least
  int weight_splits, factor_splits;
  int64_t bias_parts, a_parts, b_parts, floats;  // where they begin in the workspace, and its size
  int64_t a_counters, b_counters, counters;
};

inline Shares shares(const NallProblem& p, const NallGradients& out, const Device& device) {
  const auto tiles_of = [](int64_t features) { return std::max<int64_t>(1, (features + kColumns - 1) / kColumns); };
  const int64_t o_blocks = tiles_of(p.out), i_blocks = tiles_of(p.in);
  const int64_t wanted = 4 * device.multiprocessors;
  const auto splits = [&](int64_t rows, int64_t tiles) {
    return int(std::max<int64_t>(1, std::min((rows + kRows - 1) / kRows, wanted / std::max<int64_t>(1, tiles))));
  };
  const auto room = [](int splits, int64_t each) { return splits > 1 ? splits * each : 0; };
  const auto counted = [](int splits, int64_t tiles) { return splits > 1 ? tiles : 0; };  // else nobody waits
  Shares s{};
  s.o_blocks = o_blocks;
  s.i_blocks = i_blocks;
  s.weight_splits = splits(p.rows * p.nodes, o_blocks * i_blocks);
  s.factor_splits =
      splits(p.rows * p.nodes / std::max<int64_t>(1, p.adapters), p.adapters * std::max(o_blocks, i_blocks));
  s.weight_blocks = out.weight || out.bias ? o_blocks * i_blocks * s.weight_splits : 0;
  s.a_blocks = out.A ? p.adapters * o_blocks * s.factor_splits : 0;
  s.b_blocks = out.B ? p.adapters * i_blocks * s.factor_splits : 0;
  s.blocks = s.weight_blocks + s.a_blocks + s.b_blocks;
  s.bias_parts = room(s.weight_splits, o_blocks * i_blocks * kColumns * kColumns);
  s.a_parts = s.bias_parts + room(s.weight_splits, o_blocks * kColumns);
  s.b_parts = s.a_parts + room(s.factor_splits, p.adapters * p.out * p.rank);
  s.floats = s.b_parts + room(s.factor_splits, p.adapters * p.in * p.rank);
  s.a_counters = counted(s.weight_splits, o_blocks * i_blocks + o_blocks);
  s.b_counters = s.a_counters + counted(s.factor_splits, p.adapters * o_blocks);
  s.counters = s.b_counters + counted(s.factor_splits, p.adapters * i_blocks);
  return s;
}

inline int most_rank(const NspProblem& p) {
  int64_t rank = 1;
  for (int64_t l = 0; l < p.depth; ++l) rank = std::max(rank, p.layers[l].rank);
  return int(rank);
}

// Where things stand in the workspace, which begins with what the parameters' roles share.
struct StackShares {
  Shares layer;
  int64_t row_blocks, chain, norm_parts, floats, counters;  // the last three counters are the kernel's own
};

// The NALL that is one layer of the stack, of the highest rank.
inline NallProblem layer_of(const NspProblem& p) {
  NallProblem layer{};
  layer.dtype = p.dtype;
  layer.rows = p.rows;
  layer.nodes = p.nodes;
  layer.in = layer.out = p.features;
  layer.rank = most_rank(p);
  layer.adapters = p.adapters;
  layer.node_index = p.node_index;
  layer.alpha = p.alpha;
  return layer;
}

inline StackShares stack_shares(const NspProblem& p, const NspLayerGradients* out, const Device& device) {
  const NspLayerGradients& wanted = out[0];
  StackShares s{};
  s.layer = shares(layer_of(p), {nullptr, wanted.weight, wanted.bias, wanted.A, wanted.B}, device);
  s.row_blocks = std::min(p.nodes * ((p.rows + kRows - 1) / kRows), int64_t(2 * device.multiprocessors));
  s.chain = p.depth * s.layer.floats;
  s.norm_parts = s.chain + (p.depth > 1 ? p.rows * p.nodes * p.features : 0);
  s.floats = s.norm_parts + s.row_blocks * p.depth * p.features;
  s.counters = p.depth * s.layer.counters + 3;
  return s;
}

}  // namespace stlora::cuda
