// Products of tiles with what an adapter keeps, in the type that the instruction set multiplies fastest: bf16 as it is
// where there is a dot product for it (dot.h), two numbers along K at a time; all others in the compute type.
//
// Sums are fp32 either way. What is not bf16 already (W_p, z, U, sigma, the gradients between layers) is rounded once.
#pragma once

#include <type_traits>

#include "kernels.h"
#include "scratch.h"
#include "tile.h"

namespace stlora::cpu::STLORA_ISA {

template <typename S>
inline constexpr bool kPairs = kHasDot && std::is_same_v<S, bf16>;

// A right operand [K, columns], packed, and the same as pairs along K.
template <typename T>
struct Right {
  Matrix<T> wide{};
  Matrix<Pair> pairs{};

  Right() = default;
  Right(Cutter& cut, int64_t K, int64_t columns, bool with_pairs)
      : Right(cut, cut.packed<T>(K, columns), K, columns, with_pairs) {}
  Right(Cutter& cut, Matrix<T> given, int64_t K, int64_t columns, bool with_pairs) : wide(given) {
    if (with_pairs) pairs = cut.packed<Pair>((K + 1) / 2, columns);
  }

  // To be called when rows [first, K) have been written.
  template <typename S>
  void written(int64_t first, int64_t K, int64_t columns) const {
    first -= first % 2;  // the partner of an odd row
    if constexpr (kPairs<S>) pair_rows(wide.from(first, 0), K - first, columns, pairs.from(first / 2, 0));
  }
};

// Room for the tile of a product as pairs.
struct PairTiles {
  Matrix<Pair> along{}, left{}, right{};  // [R, widest / 2], [R / 2, widest], [R / 2, widest]

  PairTiles() = default;
  PairTiles(Cutter& cut, int64_t widest, bool with_pairs) {
    if (!with_pairs) return;
    along = cut.matrix<Pair>(kRowBlock, (widest + 1) / 2);
    left = cut.matrix<Pair>(kRowBlock / 2, widest);
    right = cut.matrix<Pair>(kRowBlock / 2, widest);
  }
};

// C [rows, columns] = D + L [rows, K] * R [K, columns]
template <typename S>
void rows_times(int64_t rows, int64_t columns, int64_t K, Matrix<Compute<S>> left, const Right<Compute<S>>& right,
                Matrix<Compute<S>> d, Matrix<Compute<S>> c, [[maybe_unused]] const PairTiles& pairs,
                Prefetch next = {}) {
  if constexpr (kPairs<S>) {
    for (int64_t i = 0; i < rows; ++i) pair_row(left.row(i), K, pairs.along.row(i));
    gemm(rows, columns, (K + 1) / 2, pairs.along.left(), right.pairs, d, c, next);
  } else {
    gemm(rows, columns, K, left.left(), right.wide, d, c, next);
  }
}

// C [left_columns, columns] = D + L^T * R, of tiles L [rows, left_columns] and R [rows, columns]
template <typename S>
void transposed_times(int64_t left_columns, int64_t columns, int64_t rows, Matrix<Compute<S>> left,
                      Matrix<Compute<S>> right, Matrix<Compute<S>> d, Matrix<Compute<S>> c,
                      [[maybe_unused]] const PairTiles& pairs, Prefetch next = {}) {
  if constexpr (kPairs<S>) {
    pair_rows(left, rows, left_columns, pairs.left);
    pair_rows(right, rows, columns, pairs.right);
    gemm(left_columns, columns, (rows + 1) / 2, pairs.left.transposed(), pairs.right, d, c, next);
  } else {
    gemm(left_columns, columns, rows, left.transposed(), right, d, c, next);
  }
}

}  // namespace stlora::cpu::STLORA_ISA
