// C [rows, columns] = D [rows, columns] + L [rows, K] * R [K, columns].
//
// A micro-kernel owns a block of kRows x kVectors vectors of C in registers and walks along K: one vector load per
// column vector of R, one broadcast per row of L. R, C and D are cut into panels as wide as a block (struct Matrix), so
// that a packed R streams through L1 line by line; L is read element by element at any strides, so that a transposed
// operand costs nothing. D is nothing, C itself (accumulation), another matrix, or one row for all (ld 0: a bias).
#pragma once

#include <type_traits>

#include "dot.h"

namespace stlora::cpu::STLORA_ISA {

// Accumulators fill the register file, less what holds a row of R and a broadcast.
inline constexpr int kVectors = 2;
#if STLORA_VECTOR_BYTES == 64
inline constexpr int kRows = 12;  // 24 of 32 zmm
#elif STLORA_VECTOR_BYTES == 32
inline constexpr int kRows = 6;  // 12 of 16 ymm
#else
inline constexpr int kRows = 4;  // 8 of 16 xmm
#endif

template <typename T>
struct Left {  // element (row, k) stands at data[row * row_stride + k * k_stride]
  const T* data;
  int64_t row_stride, k_stride;
};

template <typename T>
inline constexpr int64_t kPanel = kVectors * lanes<T>;  // columns of a panel

// Element (i, j) stands at data[j / kPanel * panel + i * ld + j % kPanel]. Row-major: panel is kPanel. Packed: the
// panels stand one after another, and ld is kPanel.
template <typename T>
struct Matrix {
  T* data;
  int64_t ld, panel = kPanel<T>;
  T* row(int64_t i) const { return data + i * ld; }  // contiguous in a row-major matrix only
  T* at(int64_t i, int64_t j) const { return data + j / kPanel<T> * panel + i * ld + j % kPanel<T>; }
  Matrix from(int64_t i, int64_t j) const { return {at(i, j), ld, panel}; }  // j a multiple of kPanel where packed
  Left<T> left() const { return {data, ld, 1}; }
  Left<T> transposed() const { return {data, 1, ld}; }
};

// sum + a * b; or + a * b of two neighbours of K at a time, where the elements are pairs of bf16 (dot.h).
template <typename E, typename T>
STLORA_INLINE Vector<T> multiply_add(Vector<E> a, Vector<E> b, Vector<T> sum) {
  if constexpr (std::is_same_v<E, T>)
    return sum + a * b;
  else
    return dot(a, b, sum);
}

template <int ROWS, int VECTORS, typename T, typename E>
STLORA_INLINE void gemm_block(int64_t K, Left<E> left, const E* right, int64_t right_ld, const T* d, int64_t d_ld, T* c,
                              int64_t c_ld) {
  Vector<T> sum[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS; ++j) sum[i][j] = d ? load(d + i * d_ld + j * lanes<T>) : Vector<T>{};
  const E* l = left.data;
#pragma GCC unroll 4
  for (int64_t k = 0; k < K; ++k, l += left.k_stride, right += right_ld) {
    Vector<E> columns[VECTORS];
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS; ++j) columns[j] = load(right + j * lanes<E>);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const Vector<E> broadcast = l[i * left.row_stride] - Vector<E>{};
#pragma GCC unroll 2
      for (int j = 0; j < VECTORS; ++j) sum[i][j] = multiply_add<E, T>(broadcast, columns[j], sum[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS; ++j) store(c + i * c_ld + j * lanes<T>, sum[i][j]);
}

template <int VECTORS, int ROWS = kRows - 1, typename T, typename E>
STLORA_INLINE void gemm_last_rows(int64_t rows, int64_t K, Left<E> left, const E* right, int64_t right_ld, const T* d,
                                  int64_t d_ld, T* c, int64_t c_ld) {
  if (rows == ROWS) {
    gemm_block<ROWS, VECTORS>(K, left, right, right_ld, d, d_ld, c, c_ld);
  } else if constexpr (ROWS > 1) {
    gemm_last_rows<VECTORS, ROWS - 1>(rows, K, left, right, right_ld, d, d_ld, c, c_ld);
  }
}

// Memory that will be needed next, fetched row by row while a product computes.
class Prefetch {
 public:
  void add(const void* first, int64_t rows, int64_t stride_bytes, int64_t row_bytes) {
    if (rows <= 0 || count_ == kMost) return;  // a hint: what does not fit comes when it is read
    ranges_[count_++] = {static_cast<const char*>(first), rows, stride_bytes, row_bytes};
    rows_ += rows;
  }

  void pace(int64_t steps) { per_step_ = steps > 0 ? (rows_ + steps - 1) / steps : rows_; }

  STLORA_INLINE void step() {
    for (int64_t n = per_step_; n > 0 && at_ < count_; --n) {
      Range& range = ranges_[at_];
      for (int64_t byte = 0; byte < range.bytes; byte += 64) __builtin_prefetch(range.row + byte);
      range.row += range.stride;
      if (--range.rows == 0) ++at_;
    }
  }

 private:
  struct Range {
    const char* row;
    int64_t rows, stride, bytes;
  };
  static constexpr int kMost = 4;
  Range ranges_[kMost];
  int count_ = 0, at_ = 0;
  int64_t rows_ = 0, per_step_ = 0;
};

// All rows of one panel, or of its first VECTORS vectors.
template <int VECTORS, typename T, typename E>
void gemm_panel(int64_t rows, int64_t K, Left<E> left, const E* right, int64_t right_ld, const T* d, int64_t d_ld, T* c,
                int64_t c_ld, Prefetch& next) {
  for (; rows >= kRows; rows -= kRows) {
    next.step();
    gemm_block<kRows, VECTORS>(K, left, right, right_ld, d, d_ld, c, c_ld);
    left.data += kRows * left.row_stride;
    if (d) d += kRows * d_ld;
    c += kRows * c_ld;
  }
  gemm_last_rows<VECTORS>(rows, K, left, right, right_ld, d, d_ld, c, c_ld);
}

// Columns are rounded up to whole vectors: unless they are a multiple of lanes<T>, C must be padded scratch.
template <typename T, typename E>
void gemm(int64_t rows, int64_t columns, int64_t K, Left<E> left, Matrix<E> right, Matrix<T> d, Matrix<T> c,
          Prefetch next = {}) {
  next.pace((columns + kPanel<T> - 1) / kPanel<T> * (rows / kRows));
  for (; columns > 0; columns -= kPanel<T>) {
    if (columns > lanes<T>)
      gemm_panel<2>(rows, K, left, right.data, right.ld, d.data, d.ld, c.data, c.ld, next);
    else
      gemm_panel<1>(rows, K, left, right.data, right.ld, d.data, d.ld, c.data, c.ld, next);
    right.data += right.panel;
    if (d.data) d.data += d.panel;
    c.data += c.panel;
  }
}

}  // namespace stlora::cpu::STLORA_ISA
