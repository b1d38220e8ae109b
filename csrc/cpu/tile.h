// Moves between a caller's arrays (any storage type and strides) and scratch tiles (compute type, padded rows).
#pragma once

#include "gemm.h"
#include "philox.h"
#include "stlora/nall.h"

namespace stlora::cpu::STLORA_ISA {

template <typename S>
STLORA_INLINE void load_row(const S* from, int64_t stride, int64_t count, Compute<S>* to) {
  if (stride == 1)
    for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
  else
    for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i * stride]);
  // The padding is computed with, though never stored: keep it tame.
  for (int64_t i = count; i < padded<Compute<S>>(count); ++i) to[i] = 0;
}

template <typename S>
STLORA_INLINE void store_row(const Compute<S>* from, int64_t count, S* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = narrow<S>(from[i]);
}

template <typename S>
const S* element(const Strided& array, int64_t row, int64_t node) {
  return static_cast<const S*>(array.data) + row * array.row + node * array.node;
}

// to[i][j] = scale * from[i][j]
template <typename S>
void load_matrix(const S* from, int64_t rows, int64_t columns, Compute<S> scale, Matrix<Compute<S>> to) {
  for (int64_t i = 0; i < rows; ++i) {
    load_row(from + i * columns, 1, columns, to.row(i));
    if (scale != 1)
      for (int64_t j = 0; j < columns; ++j) to.row(i)[j] *= scale;
  }
}

// to[j][i] = scale * from[i][j]
template <typename S>
void load_transposed(const S* from, int64_t rows, int64_t columns, Compute<S> scale, Matrix<Compute<S>> to) {
  constexpr int64_t kBlock = 16;  // rows read together, so that their cache lines are used up
  for (int64_t i0 = 0; i0 < rows; i0 += kBlock)
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = i0; i < i0 + kBlock && i < rows; ++i) to.row(j)[i] = scale * widen(from[i * columns + j]);
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t i = rows; i < padded<Compute<S>>(rows); ++i) to.row(j)[i] = 0;
}

template <typename S>
void store_matrix(Matrix<Compute<S>> from, int64_t rows, int64_t columns, S* to) {
  for (int64_t i = 0; i < rows; ++i) store_row(from.row(i), columns, to + i * columns);
}

template <typename T>
void fill_zero(Matrix<T> m, int64_t rows) {
  for (int64_t i = 0; i < rows * m.ld; ++i) m.data[i] = 0;
}

template <typename T>
void add(Matrix<T> from, int64_t rows, Matrix<T> to) {  // of the same ld
  for (int64_t i = 0; i < rows * to.ld; ++i) to.data[i] += from.data[i];
}

}  // namespace stlora::cpu::STLORA_ISA
