// Moves between a caller's arrays (any storage type and strides) and scratch tiles (compute type, padded rows).
#pragma once

#include <type_traits>

#include "gemm.h"
#include "philox.h"
#include "stlora/nall.h"

namespace stlora::cpu::STLORA_ISA {

template <typename S>
STLORA_INLINE void load_row(const S* from, int64_t stride, int64_t count, Compute<S>* to) {
  using T = Compute<S>;
  // The padding is computed with, though never stored: keep it tame. (The whole last vector: a loop over the rest of it
  // would become a call of memset for every row.)
  if (count % lanes<T> != 0) store(to + count / lanes<T> * lanes<T>, Vector<T>{});
  if (stride == 1)
    for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
  else
    for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i * stride]);
}

template <typename S>
STLORA_INLINE void store_row(const Compute<S>* from, int64_t count, S* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = narrow<S>(from[i]);
}

template <typename S>
const S* element(const Strided& array, int64_t row, int64_t node) {
  return static_cast<const S*>(array.data) + row * array.row + node * array.node;
}

// Rows of so few columns that a loop along each would cost more than what it moves.
template <typename T>
constexpr bool narrow_rows(int64_t columns) {
  return columns <= lanes<T> / 4;
}

// Rows [first, first + rows) of a node into a tile.
template <typename S>
void load_rows(const Strided& from, int64_t first, int64_t node, int64_t rows, int64_t columns, Matrix<Compute<S>> to) {
  const S* const row = element<S>(from, first, node);
  if (!narrow_rows<Compute<S>>(columns)) {
    for (int64_t i = 0; i < rows; ++i) load_row(row + i * from.row, from.feature, columns, to.row(i));
    return;
  }
  for (int64_t i = 0; i < rows; ++i) store(to.row(i), Vector<Compute<S>>{});
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t i = 0; i < rows; ++i) to.row(i)[j] = widen(row[i * from.row + j * from.feature]);
}

template <typename S>
void store_rows(Matrix<Compute<S>> from, int64_t rows, int64_t columns, S* to, int64_t to_ld) {
  if (!narrow_rows<Compute<S>>(columns))
    for (int64_t i = 0; i < rows; ++i) store_row(from.row(i), columns, to + i * to_ld);
  else
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = 0; i < rows; ++i) to[i * to_ld + j] = narrow<S>(from.row(i)[j]);
}

// to[i][j] = scale * from[i][j], row-major or packed
template <typename S>
void load_matrix(const S* from, int64_t rows, int64_t columns, Compute<S> scale, Matrix<Compute<S>> to) {
  using T = Compute<S>;
  for (int64_t j = 0; j < columns; j += kPanel<T>)
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t count = columns - j < kPanel<T> ? columns - j : kPanel<T>;
      T* const row = to.at(i, j);
      load_row(from + i * columns + j, 1, count, row);
      if (scale != 1)
        for (int64_t k = 0; k < count; ++k) row[k] *= scale;
    }
}

// lanes<T> rows of as many elements, ld apart, transposed in registers: log2(lanes) perfect shuffles.
template <typename T>
STLORA_INLINE void transpose_block(const T* from, int64_t ld, T scale, T* to, int64_t to_ld) {
  using Index = Vector<std::conditional_t<sizeof(T) == 8, int64_t, int32_t>>;
  constexpr int kLanes = lanes<T>;
  Index low, high;
  for (int l = 0; l < kLanes; ++l) {
    low[l] = l / 2 + l % 2 * kLanes;
    high[l] = low[l] + kLanes / 2;
  }
  Vector<T> rows[2][kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) rows[0][i] = load(from + i * ld) * scale;
  int now = 0;
#pragma GCC unroll 4
  for (int step = 1; step < kLanes; step *= 2, now ^= 1)
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      const Vector<T> a = rows[now][i], b = rows[now][i + kLanes / 2];
      rows[now ^ 1][2 * i] = __builtin_shuffle(a, b, low);
      rows[now ^ 1][2 * i + 1] = __builtin_shuffle(a, b, high);
    }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) store(to + i * to_ld, rows[now][i]);
}

// to[j][i] = scale * from[i][j], row-major or packed
template <typename S>
void load_transposed(const S* from, int64_t rows, int64_t columns, Compute<S> scale, Matrix<Compute<S>> to) {
  using T = Compute<S>;
  constexpr int64_t kLanes = lanes<T>;
  for (int64_t i = 0; i < rows; i += kLanes)
    for (int64_t j = 0; j < columns; j += kLanes) {
      if constexpr (std::is_same_v<S, T>)
        if (i + kLanes <= rows && j + kLanes <= columns) {
          transpose_block(from + i * columns + j, columns, scale, to.at(j, i), to.ld);
          continue;
        }
      for (int64_t jj = j; jj < j + kLanes && jj < columns; ++jj)
        for (int64_t ii = i; ii < i + kLanes; ++ii)  // the padding too, see load_row
          *to.at(jj, ii) = ii < rows ? scale * widen(from[ii * columns + jj]) : T(0);
    }
}

// count numbers, two by two; an odd one's neighbour is 0.
STLORA_INLINE void pair_row(const bf16* from, int64_t stride, int64_t count, Pair* to) {
  if (stride == 1)
    std::memcpy(to, from, size_t(count / 2) * sizeof(Pair));
  else
    for (int64_t k = 0; k < count / 2; ++k) to[k] = pair(from[2 * k * stride], from[(2 * k + 1) * stride]);
  if (count % 2 != 0) to[count / 2] = pair(from[(count - 1) * stride], bf16{});
}

STLORA_INLINE void pair_row(const float* from, int64_t count, Pair* to) {
  for (int64_t k = 0; k < count / 2; ++k) to[k] = pair(narrow<bf16>(from[2 * k]), narrow<bf16>(from[2 * k + 1]));
  if (count % 2 != 0) to[count / 2] = pair(narrow<bf16>(from[count - 1]), bf16{});
}

// Packed rows of whole vectors, two rows by two; an odd one's neighbour is 0.
inline void pair_rows(Matrix<float> from, int64_t rows, int64_t columns, Matrix<Pair> to) {
  for (int64_t j = 0; j < columns; j += kPanel<float>)
    for (int64_t i = 0; i < rows; i += 2) {
      const float *first = from.at(i, j), *second = i + 1 < rows ? from.at(i + 1, j) : nullptr;
      Pair* const row = to.at(i / 2, j);
      const int64_t count = columns - j > lanes<float> ? kPanel<float> : lanes<float>;
      for (int64_t l = 0; l < count; ++l)
        row[l] = pair(narrow<bf16>(first[l]), second ? narrow<bf16>(second[l]) : bf16{});
    }
}

template <typename S>
void store_matrix(Matrix<Compute<S>> from, int64_t rows, int64_t columns, S* to) {
  for (int64_t i = 0; i < rows; ++i) store_row(from.row(i), columns, to + i * columns);
}

template <typename T>
void fill_zero(Matrix<T> m, int64_t rows) {
  for (int64_t i = 0; i < rows * m.ld; ++i) m.data[i] = 0;
}

template <int VECTORS, typename T>
STLORA_INLINE void add_column_vectors(Matrix<T> m, int64_t rows, int64_t j, T* sum) {
  Vector<T> tile[VECTORS] = {};
  for (int64_t i = 0; i < rows; ++i)
    for (int v = 0; v < VECTORS; ++v) tile[v] += load(m.row(i) + j + v * lanes<T>);
  for (int v = 0; v < VECTORS; ++v) store(sum + j + v * lanes<T>, load(sum + j + v * lanes<T>) + tile[v]);
}

// sum[j] += the sum of column j, of whole vectors; added up apart first: long sums of small numbers would lose digits.
template <typename T>
void add_columns(Matrix<T> m, int64_t rows, int64_t columns, T* sum) {
  int64_t j = 0;
  for (; j + 4 * lanes<T> <= columns; j += 4 * lanes<T>) add_column_vectors<4>(m, rows, j, sum);
  for (; j < columns; j += lanes<T>) add_column_vectors<1>(m, rows, j, sum);
}

template <typename T>
STLORA_INLINE void add_row(const T* from, int64_t count, T* to) {  // of padded rows
  for (int64_t j = 0; j < count; j += lanes<T>) store(to + j, load(to + j) + load(from + j));
}

template <typename T>
void add(Matrix<T> from, int64_t rows, Matrix<T> to) {  // of the same ld
  for (int64_t i = 0; i < rows * to.ld; ++i) to.data[i] += from.data[i];
}

}  // namespace stlora::cpu::STLORA_ISA
