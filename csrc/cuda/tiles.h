// Tiles in shared memory and their products, C[m, n] = sum over k of L[m, k] R[n, k].
//
// An operand's tile has k along its rows, or, TRANSPOSED, along its columns: fragments are loaded from either, so no
// tile is ever turned around. Rows of a tile are padded to whole fragments with zeros, and their lengths are 16 bytes
// more than a power of two or so: no bank conflicts.
#pragma once

#include <cuda_pipeline.h>
#include <mma.h>

#include "device.h"

namespace stlora::cuda {

constexpr int kFragment = 16;

template <typename T>
__host__ __device__ constexpr int row_length(int columns) {  // of a tile, in numbers
  return round_up(columns, kFragment) + 16 / int(sizeof(T));
}

template <typename T>
struct Tile {
  Ptr<T> at;
  int length;  // of a row
};

// Copies rows x columns of an array whose columns are `step` apart, row by row, by all threads. Asynchronously, 16
// bytes at a time, where ALIGNED says that rows begin at 16 bytes and columns are whole such pieces and neighbours.
// What lies beyond is zero, up to `tile_rows` and whole fragments of columns. `row_of(i)` points to row i of the array.
template <bool ALIGNED, typename T, typename RowOf>
__device__ void load_tile(Tile<T> tile, int tile_rows, int rows, int columns, int64_t step, RowOf row_of) {
  const int padded = round_up(columns, kFragment);
  if constexpr (ALIGNED) {
    constexpr int piece = 16 / sizeof(T);
    const int pieces = padded / piece;
    for (int e = threadIdx.x; e < tile_rows * pieces; e += blockDim.x) {
      const int row = e / pieces, column = e % pieces * piece;
      const Ptr<T> to = tile.at + row * tile.length + column;
      if (row < rows && column < columns) {
        __pipeline_memcpy_async(to, row_of(row) + column, 16);
      } else {
        for (int i = 0; i < piece; ++i) to[i] = rounded<T>(0);
      }
    }
  } else {
    for (int e = threadIdx.x; e < tile_rows * padded; e += blockDim.x) {
      const int row = e / padded, column = e % padded;
      tile.at[row * tile.length + column] =
          row < rows && column < columns ? static_cast<T>(row_of(row)[column * step]) : rounded<T>(0);
    }
  }
}

// 16 rows times 16 COLUMNS of a product, owned by one warp.
template <typename T, int COLUMNS>
class WarpProduct {
 public:
  __device__ WarpProduct() {
    for (int c = 0; c < COLUMNS; ++c) nvcuda::wmma::fill_fragment(sum_[c], 0.0f);
  }

  // L from its m = `row` on, R from its n = `column` on, `columns` fragments of it; `k` is a multiple of 16.
  template <bool LEFT_TRANSPOSED = false, bool RIGHT_TRANSPOSED = false>
  __device__ void add(Tile<T> left, int row, Tile<T> right, int column, int columns, int k) {
    using namespace nvcuda;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, T, std::conditional_t<LEFT_TRANSPOSED, wmma::col_major, wmma::row_major>>
        l;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, T,
                   std::conditional_t<RIGHT_TRANSPOSED, wmma::row_major, wmma::col_major>>
        r;
    for (int i = 0; i < k; i += kFragment) {
      wmma::load_matrix_sync(l, left.at + (LEFT_TRANSPOSED ? i * left.length + row : row * left.length + i),
                             left.length);
      for (int c = 0; c < COLUMNS; ++c) {
        if (c >= columns) break;
        const int n = column + c * kFragment;
        wmma::load_matrix_sync(r, right.at + (RIGHT_TRANSPOSED ? i * right.length + n : n * right.length + i),
                               right.length);
        wmma::mma_sync(sum_[c], l, r, sum_[c]);
      }
    }
  }

  __device__ void store(Tile<float> to, int row, int columns) const {
    for (int c = 0; c < COLUMNS; ++c) {
      if (c >= columns) break;
      nvcuda::wmma::store_matrix_sync(to.at + (row * to.length + c * kFragment), sum_[c], to.length,
                                      nvcuda::wmma::mem_row_major);
    }
  }

 private:
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sum_[COLUMNS];
};

// Exact fp32, without tensor cores: a lane owns a row and every second column of the warp's part.
template <int COLUMNS>
class WarpProduct<float, COLUMNS> {
 public:
  __device__ WarpProduct() {
    for (float& s : sum_) s = 0;
  }

  template <bool LEFT_TRANSPOSED = false, bool RIGHT_TRANSPOSED = false>
  __device__ void add(Tile<float> left, int row, Tile<float> right, int column, int columns, int k) {
    const int lane = threadIdx.x % 32, m = row + lane / 2, first = column + lane % 2;
    for (int i = 0; i < k; ++i) {
      const float l = left.at[LEFT_TRANSPOSED ? i * left.length + m : m * left.length + i];
      for (int c = 0; c < COLUMNS * 8; ++c) {
        if (c >= columns * 8) break;
        const int n = first + 2 * c;
        sum_[c] += l * right.at[RIGHT_TRANSPOSED ? i * right.length + n : n * right.length + i];
      }
    }
  }

  __device__ void store(Tile<float> to, int row, int columns) const {
    const int lane = threadIdx.x % 32, r = row + lane / 2, first = lane % 2;
    for (int c = 0; c < COLUMNS * 8; ++c) {
      if (c >= columns * 8) break;
      to.at[r * to.length + first + 2 * c] = sum_[c];
    }
  }

 private:
  float sum_[COLUMNS * 8];
};

}  // namespace stlora::cuda
