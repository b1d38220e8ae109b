// Forward of the NALL on one thread's run of (node, row block) units.
//
// A thread owns the rows of its units. It keeps W^T and the current adapter in L2, the tile of x and of y in L1/L2;
// x is read once, y written once, A and B read once per adapter.
//
// Two orders of contraction, by cost: build W_p = W + alpha A_p B_p once per adapter (2 I O r flop) and multiply the
// rows by it; or, for few rows or with dropout on the low-rank path, z = dropout(x) B_p^T and y = x W^T + z alpha
// A_p^T.
#pragma once

#include <type_traits>

#include "kernels.h"
#include "parallel.h"
#include "scratch.h"
#include "tile.h"

namespace stlora::cpu::STLORA_ISA {

template <typename T>
Dropout<T> low_rank_dropout(const NallProblem& p) {
  return Dropout<T>(p.dropout_p, p.seed, /*stream=*/0, /*layer=*/0);
}

inline int64_t element_index(const NallProblem& p, int64_t row, int64_t slot) { return (row * p.nodes + slot) * p.in; }

template <typename T>
struct NallForwardScratch {
  Matrix<T> weight_t, bias;    // [I, O], [1, O]
  Matrix<T> merged_t;          // [I, O]  W_p^T
  Matrix<T> a_t, b, b_t;       // [r, O] alpha A_p^T, [r, I], [I, r]
  Matrix<T> x, dropped, z, y;  // [R, I], [R, I], [R, r], [R, O]

  NallForwardScratch(Cutter& cut, const NallProblem& p)
      : weight_t(cut.matrix<T>(p.in, p.out)),
        bias(cut.matrix<T>(1, p.out)),
        merged_t(cut.matrix<T>(p.in, p.out)),
        a_t(cut.matrix<T>(p.rank, p.out)),
        b(cut.matrix<T>(p.rank, p.in)),
        b_t(cut.matrix<T>(p.in, p.rank)),
        x(cut.matrix<T>(kRowBlock, p.in)),
        dropped(cut.matrix<T>(kRowBlock, p.in)),
        z(cut.matrix<T>(kRowBlock, p.rank)),
        y(cut.matrix<T>(kRowBlock, p.out)) {}
};

// y > 0 ? y : y * slope, but without 0 * inf for relu; NaN stays NaN.
template <typename T>
void activate(const NallProblem& p, T* y) {
  if (p.activation == Activation::relu)
    for (int64_t o = 0; o < p.out; ++o) y[o] = y[o] <= 0 ? T(0) : y[o];
  if (p.activation == Activation::leaky_relu)
    for (int64_t o = 0; o < p.out; ++o) y[o] = y[o] > 0 ? y[o] : y[o] * T(p.negative_slope);
}

// The rows of a unit that this thread will need next, if it has any left.
template <typename S>
Prefetch prefetch_unit(const Schedule& schedule, const Strided& array, int64_t features, int thread, int64_t u) {
  if (u >= schedule.last(thread) || array.feature != 1) return {};
  const Schedule::Unit unit = schedule.unit(u);
  constexpr int64_t kSize = sizeof(S);
  return {element<S>(array, unit.begin, unit.slot), unit.end - unit.begin, array.row * kSize, features * kSize};
}

template <typename S>
void nall_forward(const NallProblem& p, const Schedule& schedule, void* y_out) {
  using T = Compute<S>;
  const Dropout<T> dropout = low_rank_dropout<T>(p);
  Cutter count(nullptr);
  NallForwardScratch<T> needed(count, p);
  char* slab = scratch_slab(count.used() * size_t(schedule.threads()));

  parallel(schedule.threads(), [&](int thread) {
    Cutter cut(slab + count.used() * size_t(thread));
    const NallForwardScratch<T> s(cut, p);
    const Matrix<T> nothing{nullptr, 0};
    load_transposed(static_cast<const S*>(p.weight), p.out, p.in, T(1), s.weight_t);
    Matrix<T> bias = nothing;
    if (p.bias) {
      load_row(static_cast<const S*>(p.bias), 1, p.out, s.bias.data);
      bias = {s.bias.data, 0};
    }

    schedule.for_each_segment(thread, [&](const Segment& segment) {
      const int64_t rows_of_adapter = schedule.rows_of(segment.adapter);
      const bool merge = !dropout.active() && p.in * p.out < rows_of_adapter * (p.in + p.out);
      const S* B = static_cast<const S*>(p.B) + segment.adapter * p.B_stride;
      load_transposed(static_cast<const S*>(p.A) + segment.adapter * p.A_stride, p.out, p.rank, T(p.alpha), s.a_t);
      if (merge) {
        load_matrix(B, p.rank, p.in, T(1), s.b);
        gemm(p.in, p.out, p.rank, s.b.transposed(), s.a_t, s.weight_t, s.merged_t);
      } else {
        load_transposed(B, p.rank, p.in, T(1), s.b_t);
      }

      for (int64_t u = segment.first; u < segment.last; ++u) {
        const Schedule::Unit unit = schedule.unit(u);
        const int64_t rows = unit.end - unit.begin;
        for (int64_t i = 0; i < rows; ++i)
          load_row(element<S>(p.x, unit.begin + i, unit.slot), p.x.feature, p.in, s.x.row(i));
        // Straight into y where that has whole vectors and no conversion is due.
        const bool direct = std::is_same_v<S, T> && p.out % lanes<T> == 0;
        S* const y_rows = static_cast<S*>(y_out) + (unit.begin * p.nodes + unit.slot) * p.out;
        Matrix<T> y = s.y;
        if constexpr (std::is_same_v<S, T>)
          if (direct) y = {y_rows, p.nodes * p.out};
        gemm(rows, p.out, p.in, s.x.left(), merge ? s.merged_t : s.weight_t, bias, y,
             prefetch_unit<S>(schedule, p.x, p.in, thread, u + 1));
        if (!merge) {
          Matrix<T> low_rank_x = s.x;
          if (dropout.active()) {
            low_rank_x = s.dropped;
            for (int64_t i = 0; i < rows; ++i) {
              dropout.factors(element_index(p, unit.begin + i, unit.slot), p.in, s.dropped.row(i));
              drop_row(s.x.row(i), s.dropped.row(i), p.in, s.dropped.row(i));
            }
          }
          gemm(rows, p.rank, p.in, low_rank_x.left(), s.b_t, nothing, s.z);
          gemm(rows, p.out, p.rank, s.z.left(), s.a_t, y, y);
        }
        for (int64_t i = 0; i < rows; ++i) {
          activate(p, y.row(i));
          if (!direct) store_row(y.row(i), p.out, y_rows + i * p.nodes * p.out);
        }
      }
    });
  });
}

}  // namespace stlora::cpu::STLORA_ISA
