// What the NALL's forward and backward kernels share: tile sizes, dropout of a tile, the activation.
#pragma once

#include "kernels.h"
#include "philox.h"
#include "shares.h"
#include "tiles.h"

namespace stlora::cuda {

// Blocks that a multiprocessor is to have room for: a kernel may use half of its registers.
constexpr int kAtOnce = 2;

// `columns` of x from `first` on without the elements that dropout takes, the others scaled, in a tile of kRows. Row i
// of the tile is row `element_row(i)` of the [M * N, I] array that the contract numbers. `to` may be the tile itself.
template <typename T, typename ElementRow>
__device__ void drop(const Dropout& dropout, Tile<T> x, Tile<T> to, int64_t in, int first, int columns,
                     ElementRow element_row) {
  const int groups = round_up(columns, kFragment) / 4;  // a row's first may stand inside a draw
  for (int e = threadIdx.x; e < kRows * groups; e += blockDim.x) {
    const int row = e / groups, column = e % groups * 4;
    const uint64_t element = uint64_t(element_row(row) * in + first + column);
    const unsigned kept = dropout.keeps(element);
    for (int i = 0; i < 4; ++i) {
      const float value = wide(static_cast<T>(x.at[row * x.length + column + i]));
      to.at[row * to.length + column + i] = rounded<T>(kept >> i & 1 ? value * dropout.scale : 0.0f);
    }
  }
}

__device__ __forceinline__ float activated(float y, Activation activation, float slope) {
  if (activation == Activation::relu) return y <= 0 ? 0.0f : y;
  if (activation == Activation::leaky_relu) return y > 0 ? y : y * slope;
  return y;
}

// A warp's 16 rows of the low-rank code L R^T, by way of `sums`; what pads the rank is zero, whatever pads L and R.
template <bool RIGHT_TRANSPOSED, typename T>
__device__ void low_rank_code(Tile<T> left, int row, Tile<T> right, Tile<float> sums, Tile<T> code, int rank, int k) {
  const int ranks = round_up(rank, kFragment);
  for (int r0 = 0; r0 < ranks; r0 += kColumns) {
    const int fragments = (ranks - r0 < kColumns ? ranks - r0 : kColumns) / kFragment;
    WarpProduct<T, kColumns / kFragment> product;
    product.template add<false, RIGHT_TRANSPOSED>(left, row, right, r0, fragments, k);
    product.store(Tile<float>{sums.at + r0, sums.length}, row, fragments);
  }
  __syncwarp();
  for (int e = threadIdx.x % 32; e < 16 * ranks; e += 32) {
    const int r = row + e / ranks, i = e % ranks;
    code.at[r * code.length + i] = rounded<T>(i < rank ? static_cast<float>(sums.at[r * sums.length + i]) : 0.0f);
  }
  __syncwarp();
}

template <Numbers>
struct Stored;
template <>
struct Stored<Numbers::f32> {
  using Type = float;
};
template <>
struct Stored<Numbers::tf32> {
  using Type = tf32;
};
template <>
struct Stored<Numbers::f16> {
  using Type = __half;
};
template <>
struct Stored<Numbers::bf16> {
  using Type = __nv_bfloat16;
};
template <Numbers N>
using Storage = typename Stored<N>::Type;

template <typename T>
bool begins_at_16_bytes(const void* p, int64_t step = 0) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && step * int64_t(sizeof(T)) % 16 == 0;
}

// Rows of `features` whole pieces of 16 bytes each.
template <typename T>
bool in_whole_pieces(const Strided& t, int64_t features) {
  return t.feature == 1 && features % (16 / int64_t(sizeof(T))) == 0 && begins_at_16_bytes<T>(t.data, t.row) &&
         begins_at_16_bytes<T>(t.data, t.node);
}

}  // namespace stlora::cuda
