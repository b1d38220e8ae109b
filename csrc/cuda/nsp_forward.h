// Forward of the NSP stack, all its layers in one launch.
//
// A block of four warps owns units of 64 rows of one node, one after the other; a warp owns 16 of the rows through all
// layers. h stays in shared memory in fp32, and beside it s, the input of a layer's products; norm, activation, dropout
// and residual are a warp's own affair. The node's A and B of the next layer are on their way while this one is
// computed, where they fit twice. W of all layers stays through all units where it fits, else it comes 64 rows at a
// time. h is read once; y, and the layers' inputs for the backward pass, are written once.
#pragma once

#include <utility>

#include "nsp_tiles.h"

namespace stlora::cuda {

template <typename T>
struct StackForwardLayout {
  int wide, rank, sums;  // row lengths of tiles of D and of r columns, and of r sums
  bool resident, twice;
  std::size_t a, factors, s, h, z, z_sums, r_rms, weight, weight_tile, bytes;

  __host__ __device__ StackForwardLayout(const Stack<T>& p, bool resident, bool twice)
      : wide(row_length<T>(p.features)),
        rank(row_length<T>(p.rank)),
        sums(row_length<float>(p.rank)),
        resident(resident),
        twice(twice) {
    const int columns = round_up(p.features, kFragment);
    a = tile_bytes<T>(round_up(p.rank, kFragment), wide);  // after B
    factors = a + tile_bytes<T>(columns, rank);
    s = factors * (twice ? 2 : 1);
    h = s + tile_bytes<T>(kRows, wide);
    z = h + tile_bytes<float>(kRows, row_length<float>(p.features));
    z_sums = z + tile_bytes<T>(kRows, rank);
    r_rms = z_sums + tile_bytes<float>(kRows, sums);
    weight = r_rms + kRows * sizeof(float);
    weight_tile = tile_bytes<T>(resident ? columns : kColumns, wide);
    bytes = weight + weight_tile * (resident ? p.depth : twice ? 2 : 1);
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads, kAtOnce)
    nsp_forward_kernel(Stack<T> p, void* y_data, bool resident, bool twice) {
  STLORA_SHARED(memory);
  const StackForwardLayout<T> l(p, resident, twice);
  Dropout dropout = p.dropout.here();
  const int D = p.features, columns = round_up(D, kFragment), groups = columns / 4;
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
  const Tile<T> s{as<T>(memory + l.s), l.wide}, z{as<T>(memory + l.z), l.rank};
  const Tile<float> h{as<float>(memory + l.h), row_length<float>(D)}, z_sums{as<float>(memory + l.z_sums), l.sums};
  const Ptr<float> r_rms = as<float>(memory + l.r_rms);
  const Ptr<T> y = static_cast<T*>(y_data);
  const Ptr<float> saved = const_cast<float*>(p.saved);
  const int64_t tiles = (p.rows + kRows - 1) / kRows, units = p.nodes * tiles;
  // Of a layer where W stays, else of a buffer.
  const auto weight_in = [&](int tile) { return Tile<T>{as<T>(memory + l.weight + tile * l.weight_tile), l.wide}; };
  const auto a_in = [&](int buffer) { return Tile<T>{as<T>(memory + buffer * l.factors + l.a), l.rank}; };
  const auto b_in = [&](int buffer) { return Tile<T>{as<T>(memory + buffer * l.factors), l.wide}; };

  if (resident)
    for (int layer = 0; layer < p.depth; ++layer) p.load_weight(layer, weight_in(layer), columns, 0, D, 0, D);
  int buffer = 0;
  p.load_factors(0, blockIdx.x / tiles, a_in(0), b_in(0));
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const int64_t node = unit / tiles, first = unit % tiles * kRows;
    for (int e = lane; e < 16 * columns; e += 32) {
      const int r = row + e / columns, c = e % columns;
      h.at[r * h.length + c] = first + r < p.rows && c < D ? p.input(first + r, node, 0, c) : 0.0f;
    }
    for (int layer = 0; layer < p.depth; ++layer) {
      const NspLayer& parameters = p.layers[layer];
      const Ptr<const T> norm = static_cast<const T*>(parameters.norm_weight),
                         bias = static_cast<const T*>(parameters.bias);
      const int rank = int(parameters.rank), ranks = round_up(rank, kFragment);
      const bool last = layer + 1 == p.depth;
      const int64_t next = last ? unit + gridDim.x : unit;
      const Tile<T> a = a_in(buffer), b = b_in(buffer);
      if (twice && next < units) {
        buffer ^= 1;
        p.load_factors(last ? 0 : layer + 1, next / tiles, a_in(buffer), b_in(buffer));
      }
      __syncwarp();
      for (int r = row; r < row + 16; ++r) {
        const float inverse = p.inverse_rms([&](int c) { return static_cast<float>(h.at[r * h.length + c]); });
        if (lane == 0) r_rms[r] = first + r < p.rows ? inverse : 0.0f;
      }
      __syncwarp();
      dropout.layer = layer;
      for (int e = lane; e < 16 * groups; e += 32) {
        const int r = row + e / groups, c0 = e % groups * 4;
        const unsigned kept = dropout.on ? dropout.keeps(uint64_t(((first + r) * p.nodes + node) * D + c0)) : 0xfu;
        for (int i = 0; i < 4; ++i) {
          const int c = c0 + i;
          float value = 0;
          if (c < D && kept >> i & 1) {
            value = h.at[r * h.length + c] * r_rms[r] * wide(static_cast<T>(norm[c])) * dropout.scale;
            value = value > 0 ? value : value * p.slope;
          }
          s.at[r * s.length + c] = rounded<T>(value);
        }
      }
      if (twice && next < units)
        __pipeline_wait_prior(1);
      else
        __pipeline_wait_prior(0);
      __syncthreads();
      low_rank_code<false>(s, row, b, z_sums, z, rank, columns);
      const auto width_of = [&](int64_t o0) { return int(D - o0 < kColumns ? D - o0 : kColumns); };
      const auto columns_of_y = [&](int o0, Tile<T> weight, int weight_row) {
        const int fragments = round_up(width_of(o0), kFragment) / kFragment;
        const Tile<float> here{h.at + o0, h.length};
        WarpProduct<T, kColumns / kFragment> product;
        product.add(z, row, a, o0, fragments, ranks);
        product.scale(p.alpha);
        product.add(s, row, weight, weight_row, fragments, columns);
        product.add(here, row, fragments);
        __syncwarp();
        product.store(here, row, fragments);
      };
      if (resident)
        for (int o0 = 0; o0 < D; o0 += kColumns) columns_of_y(o0, weight_in(layer), o0);
      else
        pipelined((D + kColumns - 1) / kColumns, twice,
                  [&](int64_t step, int tile) {
                    p.load_weight(layer, weight_in(tile), kColumns, int(step) * kColumns, width_of(step * kColumns), 0,
                                  D);
                  },
                  [&](int64_t step, int tile) { columns_of_y(int(step) * kColumns, weight_in(tile), 0); });
      __syncwarp();
      for (int e = lane; e < 16 * D; e += 32) {
        const int r = row + e / D, c = e % D;
        if (first + r >= p.rows) continue;
        const float value = h.at[r * h.length + c] + (parameters.bias ? wide(static_cast<T>(bias[c])) : 0.0f);
        h.at[r * h.length + c] = value;
        if (last)
          y[((first + r) * p.nodes + node) * D + c] = rounded<T>(value);
        else if (p.saved)
          saved[p.saved_at(first + r, node, layer + 1) + c] = value;
      }
      __syncthreads();  // before others' tiles take the place of this layer's
      if (!twice && next < units) p.load_factors(last ? 0 : layer + 1, next / tiles, a_in(0), b_in(0));
    }
  }
}

// The widest layout that a device has room for; null bytes where there is none.
template <typename T>
StackForwardLayout<T> stack_forward_layout(const Stack<T>& p, const Device& device) {
  for (const auto& [resident, twice] : {std::pair{true, true}, {true, false}, {false, true}, {false, false}}) {
    const StackForwardLayout<T> layout(p, resident, twice);
    if (layout.bytes <= device.shared_memory) return layout;
  }
  StackForwardLayout<T> none(p, false, false);
  none.bytes = 0;
  return none;
}

template <typename T>
const char* launch_nsp_forward(const NspProblem& problem, void* y, float* saved, const Launch& on) {
  const Stack<T> p(problem, saved, on.seed_at);
  if (p.units() == 0 || p.features == 0) return nullptr;
  const auto l = stack_forward_layout(p, on.device);
  // As many blocks as fit the machine at once: each keeps W through its units.
  const int64_t at_once = on.device.multiprocessors * std::max<int64_t>(1, on.device.shared_memory / l.bytes);
  return launch(nsp_forward_kernel<T>, unsigned(std::min(p.units(), at_once)), kThreads, l.bytes, on, p, y, l.resident,
                l.twice);
}

}  // namespace stlora::cuda
