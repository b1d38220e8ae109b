// What the NALL's forward and backward kernels share: tile sizes, dropout of a tile, the activation.
#pragma once

#include <algorithm>
#include <utility>

#include "philox.h"
#include "stlora/cuda.h"
#include "tiles.h"

namespace stlora::cuda {

constexpr int kRows = 64, kThreads = 128, kColumns = 64, kMostRank = 128;

// The tile of columns [first, ...) of x without the elements that dropout takes, the others scaled. Row i of the tile
// is row `element_row(i)` of the [M * N, I] array that the contract numbers. `to` may be the tile itself.
template <typename T, typename ElementRow>
__device__ void drop(const NallProblem& p, Tile<T> x, Tile<T> to, int first, ElementRow element_row, int columns = 0) {
  const Dropout dropout{p.seed, uint64_t(ceil(p.dropout_p * 4294967296.0)),
                        p.dropout_p < 1 ? float(1 / (1 - p.dropout_p)) : 0.0f, 0, 0};
  const int groups = round_up(columns ? columns : int(p.in), kFragment) / 4;  // a row's first may stand inside a draw
  for (int e = threadIdx.x; e < kRows * groups; e += blockDim.x) {
    const int row = e / groups, column = e % groups * 4;
    const uint64_t element = uint64_t(element_row(row) * p.in + first + column);
    Dropout::Words words = dropout.draw(element / 4);
    for (int i = 0; i < 4; ++i) {
      if (i > 0 && (element + i) % 4 == 0) words = dropout.draw((element + i) / 4);
      const float value = wide(static_cast<T>(x.at[row * x.length + column + i]));
      const bool kept = dropout.keeps(words, element + i);
      to.at[row * to.length + column + i] = rounded<T>(kept ? value * dropout.scale : 0.0f);
    }
  }
}

__device__ __forceinline__ float activated(float y, Activation activation, float slope) {
  if (activation == Activation::relu) return y <= 0 ? 0.0f : y;
  if (activation == Activation::leaky_relu) return y > 0 ? y : y * slope;
  return y;
}

template <typename T>
bool begins_at_16_bytes(const void* p, int64_t step = 0) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && step * int64_t(sizeof(T)) % 16 == 0;
}

}  // namespace stlora::cuda
