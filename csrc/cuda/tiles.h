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

template <typename T>
__host__ __device__ std::size_t tile_bytes(int rows, int length) {
  return std::size_t(round_up(rows * length * int(sizeof(T)), 128));
}

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

// Waits for this thread's copies, and for all threads.
__device__ __forceinline__ void arrive_copies() {
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
}

// Steps whose tiles are copied, asynchronously, by load(step, buffer) and then worked on by all threads in
// use(step, buffer). There are two buffers, and the next step's tiles are on their way meanwhile, or, not `twice`, one.
template <typename Load, typename Use>
__device__ __forceinline__ void pipelined(int64_t steps, bool twice, Load load, Use use) {
  if (steps > 0) load(int64_t(0), 0);
  __pipeline_commit();  // with what was begun before
  if (steps <= 0) return arrive_copies();
  for (int64_t step = 0; step < steps; ++step) {
    const int buffer = twice ? int(step % 2) : 0;
    if (twice && step + 1 < steps) {
      load(step + 1, buffer ^ 1);
      __pipeline_commit();
      __pipeline_wait_prior(1);
    } else {
      __pipeline_wait_prior(0);
    }
    __syncthreads();
    use(step, buffer);
    __syncthreads();  // before the next tiles take the place of these
    if (!twice && step + 1 < steps) {
      load(step + 1, 0);
      __pipeline_commit();
    }
  }
}

// How tensor cores take numbers of a type.
template <typename T>
struct Fragments {
  using Element = T;
  static constexpr int k = 16;
};
template <>
struct Fragments<tf32> {
  using Element = nvcuda::wmma::precision::tf32;
  static constexpr int k = 8;
};

// 16 rows times 16 COLUMNS of a product, owned by one warp.
template <typename T, int COLUMNS>
class WarpProduct {
 public:
  __device__ WarpProduct() {
    STLORA_UNROLL
    for (int c = 0; c < COLUMNS; ++c) nvcuda::wmma::fill_fragment(sum_[c], 0.0f);
  }

  // L from its m = `row` on, R from its n = `column` on, `columns` fragments of it; `k` is a multiple of 16.
  template <bool LEFT_TRANSPOSED = false, bool RIGHT_TRANSPOSED = false>
  __device__ void add(Tile<T> left, int row, Tile<T> right, int column, int columns, int k) {
    using namespace nvcuda;
    using Element = typename Fragments<T>::Element;
    constexpr int step = Fragments<T>::k;
    wmma::fragment<wmma::matrix_a, 16, 16, step, Element,
                   std::conditional_t<LEFT_TRANSPOSED, wmma::col_major, wmma::row_major>>
        l;
    wmma::fragment<wmma::matrix_b, 16, 16, step, Element,
                   std::conditional_t<RIGHT_TRANSPOSED, wmma::row_major, wmma::col_major>>
        r;
    for (int i = 0; i < k; i += step) {
      load(l, left.at + (LEFT_TRANSPOSED ? i * left.length + row : row * left.length + i), left.length);
      STLORA_UNROLL
      for (int c = 0; c < COLUMNS; ++c) {
        if (c >= columns) break;
        const int n = column + c * kFragment;
        load(r, right.at + (RIGHT_TRANSPOSED ? i * right.length + n : n * right.length + i), right.length);
        wmma::mma_sync(sum_[c], l, r, sum_[c]);
      }
    }
  }

  __device__ void scale(float factor) {
    STLORA_UNROLL
    for (int c = 0; c < COLUMNS; ++c)
      for (int i = 0; i < sum_[c].num_elements; ++i) sum_[c].x[i] *= factor;
  }

  // Adds what stands where store() would write.
  __device__ void add(Tile<float> from, int row, int columns) {
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, Fragments<T>::k, float> there;
    STLORA_UNROLL
    for (int c = 0; c < COLUMNS; ++c) {
      if (c >= columns) break;
      nvcuda::wmma::load_matrix_sync(there, from.at + (row * from.length + c * kFragment), from.length,
                                     nvcuda::wmma::mem_row_major);
      for (int i = 0; i < there.num_elements; ++i) sum_[c].x[i] += there.x[i];
    }
  }

  __device__ void store(Tile<float> to, int row, int columns) const {
    STLORA_UNROLL
    for (int c = 0; c < COLUMNS; ++c) {
      if (c >= columns) break;
      nvcuda::wmma::store_matrix_sync(to.at + (row * to.length + c * kFragment), sum_[c], to.length,
                                      nvcuda::wmma::mem_row_major);
    }
  }

 private:
  template <typename Fragment>
  __device__ static void load(Fragment& fragment, Ptr<T> from, int length) {
    if constexpr (std::is_same_v<T, tf32>) {
      nvcuda::wmma::load_matrix_sync(fragment, as<const float>(from), length);
      for (int i = 0; i < fragment.num_elements; ++i) fragment.x[i] = nvcuda::wmma::__float_to_tf32(fragment.x[i]);
    } else {
      nvcuda::wmma::load_matrix_sync(fragment, Ptr<const T>(from), length);
    }
  }

  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, Fragments<T>::k, float> sum_[COLUMNS];
};

// Exact fp32, without tensor cores: a lane owns every fourth of the 16 rows and every eighth column.
template <int COLUMNS>
class WarpProduct<float, COLUMNS> {
 public:
  __device__ WarpProduct() {
    STLORA_UNROLL
    for (auto& of_row : sum_) {
      STLORA_UNROLL
      for (float& s : of_row) s = 0;
    }
  }

  template <bool LEFT_TRANSPOSED = false, bool RIGHT_TRANSPOSED = false>
  __device__ void add(Tile<float> left, int row, Tile<float> right, int column, int columns, int k) {
    for (int i = 0; i < k; i += kDepth) {
      Quad l[kOwnRows];
      STLORA_UNROLL
      for (int m = 0; m < kOwnRows; ++m) l[m] = depth_of<LEFT_TRANSPOSED>(left, row + first_row() + m * kRowStep, i);
      STLORA_UNROLL
      for (int c = 0; c < kOwnColumns; ++c) {
        if (c >= columns * 2) break;
        const Quad r = depth_of<RIGHT_TRANSPOSED>(right, column + first_column() + c * kColumnStep, i);
        STLORA_UNROLL
        for (int m = 0; m < kOwnRows; ++m)
          for (int j = 0; j < kDepth; ++j) sum_[m][c] += l[m].of[j] * r.of[j];
      }
    }
  }

  __device__ void scale(float factor) {
    STLORA_UNROLL
    for (auto& of_row : sum_) {
      STLORA_UNROLL
      for (float& s : of_row) s *= factor;
    }
  }

  __device__ void add(Tile<float> from, int row, int columns) {
    each(from, row, columns, [](float& sum, auto there) { sum += static_cast<float>(there); });
  }

  __device__ void store(Tile<float> to, int row, int columns) {
    each(to, row, columns, [](float& sum, auto&& there) { there = sum; });
  }

 private:
  static constexpr int kDepth = 4, kOwnRows = 4, kRowStep = 4, kOwnColumns = 2 * COLUMNS, kColumnStep = 8;
  __device__ static int first_row() { return int(threadIdx.x) % 32 / kColumnStep; }
  __device__ static int first_column() { return int(threadIdx.x) % kColumnStep; }

  // Four neighbours in k of row (or column) n of an operand.
  template <bool TRANSPOSED>
  __device__ static Quad depth_of(Tile<float> tile, int n, int k) {
    if constexpr (!TRANSPOSED) return load_quad(tile.at + (n * tile.length + k));
    Quad q;
    for (int j = 0; j < kDepth; ++j) q.of[j] = tile.at[(k + j) * tile.length + n];
    return q;
  }

  template <typename F>
  __device__ void each(Tile<float> tile, int row, int columns, F&& f) {
    STLORA_UNROLL
    for (int c = 0; c < kOwnColumns; ++c) {
      if (c >= columns * 2) break;
      STLORA_UNROLL
      for (int m = 0; m < kOwnRows; ++m)
        f(sum_[m][c], tile.at[(row + first_row() + m * kRowStep) * tile.length + first_column() + c * kColumnStep]);
    }
  }

  float sum_[kOwnRows][kOwnColumns];
};

}  // namespace stlora::cuda
