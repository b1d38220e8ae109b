// C [rows, columns] = D [rows, columns] + L [rows, K] * R [K, columns].
//
// A micro-kernel owns a block of kRows x kVectors vectors of C in registers and walks along K: one vector load per
// column vector of R, one broadcast per row of L. Matrices are row-major with padded rows (vector.h); L is read element
// by element at any strides, so a transposed operand costs nothing. D is nothing, C itself (accumulation), another
// matrix, or one row for all (ld 0: a bias).
#pragma once

#include "vector.h"

namespace stlora::cpu::STLORA_ISA {

// Accumulators fill the register file, less what holds a row of R and a broadcast.
#if STLORA_VECTOR_BYTES == 64
inline constexpr int kRows = 8, kVectors = 3;  // 24 of 32 zmm
#elif STLORA_VECTOR_BYTES == 32
inline constexpr int kRows = 6, kVectors = 2;  // 12 of 16 ymm
#else
inline constexpr int kRows = 4, kVectors = 2;  // 8 of 16 xmm
#endif

template <typename T>
struct Left {  // element (row, k) stands at data[row * row_stride + k * k_stride]
  const T* data;
  int64_t row_stride, k_stride;
};

template <typename T>
struct Matrix {  // row-major; ld elements from row to row
  T* data;
  int64_t ld;
  T* row(int64_t i) const { return data + i * ld; }
  Left<T> left() const { return {data, ld, 1}; }
  Left<T> transposed() const { return {data, 1, ld}; }
  void move(int64_t rows, int64_t columns) { data += rows * ld + columns; }
};

template <typename T, int ROWS, int VECTORS>
void gemm_block(int64_t K, Left<T> left, Matrix<T> right, Matrix<T> d, Matrix<T> c) {
  Vector<T> sum[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j) sum[i][j] = d.data ? load(d.row(i) + j * lanes<T>) : Vector<T>{};
  const T *l = left.data, *r = right.data;
  for (int64_t k = 0; k < K; ++k, l += left.k_stride, r += right.ld) {
    Vector<T> columns[VECTORS];
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j) columns[j] = load(r + j * lanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const Vector<T> broadcast = l[i * left.row_stride] - Vector<T>{};
#pragma GCC unroll 4
      for (int j = 0; j < VECTORS; ++j) sum[i][j] += broadcast * columns[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j) store(c.row(i) + j * lanes<T>, sum[i][j]);
}

template <typename T, int VECTORS, int ROWS = kRows - 1>
STLORA_INLINE void gemm_last_rows(int64_t rows, int64_t K, Left<T> left, Matrix<T> right, Matrix<T> d, Matrix<T> c) {
  if (rows == ROWS) {
    gemm_block<T, ROWS, VECTORS>(K, left, right, d, c);
  } else if constexpr (ROWS > 1) {
    gemm_last_rows<T, VECTORS, ROWS - 1>(rows, K, left, right, d, c);
  }
}

// Rows that will be needed next, fetched little by little while a product computes.
class Prefetch {
 public:
  Prefetch() = default;
  Prefetch(const void* first, int64_t rows, int64_t stride_bytes, int64_t row_bytes)
      : row_(static_cast<const char*>(first)), rows_(rows), stride_(stride_bytes), bytes_(row_bytes) {}

  void step() {
    if (rows_ == 0) return;
    for (int64_t at = 0; at < bytes_; at += 64) __builtin_prefetch(row_ + at);
    row_ += stride_;
    --rows_;
  }

 private:
  const char* row_ = nullptr;
  int64_t rows_ = 0, stride_ = 0, bytes_ = 0;
};

template <typename T, int VECTORS>
void gemm_panel(int64_t rows, int64_t K, Left<T> left, Matrix<T> right, Matrix<T> d, Matrix<T> c, Prefetch& next) {
  for (; rows >= kRows; rows -= kRows) {
    next.step();
    next.step();
    gemm_block<T, kRows, VECTORS>(K, left, right, d, c);
    left.data += kRows * left.row_stride;
    if (d.data) d.move(kRows, 0);
    c.move(kRows, 0);
  }
  gemm_last_rows<T, VECTORS>(rows, K, left, right, d, c);
}

// Columns are rounded up to whole vectors: unless they are a multiple of lanes<T>, C must be padded scratch.
template <typename T>
void gemm(int64_t rows, int64_t columns, int64_t K, Left<T> left, Matrix<T> right, Matrix<T> d, Matrix<T> c,
          Prefetch next = {}) {
  for (int64_t vectors = padded<T>(columns) / lanes<T>, width; vectors > 0; vectors -= width) {
    // Two even panels rather than a wide one and a single vector, which could not keep the FMA units busy.
    width = vectors == kVectors + 1 && kVectors > 2 ? 2 : vectors < kVectors ? vectors : kVectors;
    if (width == kVectors)
      gemm_panel<T, kVectors>(rows, K, left, right, d, c, next);
    else if (width == 2)
      gemm_panel<T, 2>(rows, K, left, right, d, c, next);
    else
      gemm_panel<T, 1>(rows, K, left, right, d, c, next);
    right.move(0, width * lanes<T>);
    if (d.data) d.move(0, width * lanes<T>);
    c.move(0, width * lanes<T>);
  }
}

}  // namespace stlora::cpu::STLORA_ISA
