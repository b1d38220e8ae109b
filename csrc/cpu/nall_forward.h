// Forward of the NALL on one thread's run of (node, row block) units.
//
// A thread owns the rows of its units. It keeps W^T and the current adapter in L2, the tile of x and of y in L1/L2;
// x is read once, y written once, A and B read once per adapter.
//
// Two orders of contraction, by cost: build W_p = W + alpha A_p B_p once per adapter (2 I O r flop) and multiply the
// rows by it; or, for few rows or with dropout on the low-rank path, z = dropout(x) B_p^T and, as one product,
// y = [x z] [W alpha A_p]^T: z stands behind x in the tile, alpha A_p^T below W^T.
//
// bf16 is multiplied as it is where the instruction set can (products.h); x then goes from memory into pairs directly.
#pragma once

#include <type_traits>
#include <vector>

#include "next_unit.h"
#include "parallel.h"
#include "products.h"

namespace stlora::cpu::STLORA_ISA {

template <typename T>
Dropout<T> low_rank_dropout(const NallProblem& p) {
  return Dropout<T>(p.dropout_p, p.seed, /*stream=*/0, /*layer=*/0);
}

inline int64_t element_index(const NallProblem& p, int64_t row, int64_t slot) { return (row * p.nodes + slot) * p.in; }

template <typename T>
int64_t nall_forward_group(const NallProblem& p) {  // each keeps its W_p
  return group_size(int64_t(sizeof(T)) * p.in * leading_dimension<T>(p.out));
}

template <typename T>
struct NallForwardScratch {
  Matrix<T> weight_t, a_t;          // [I, O] W^T above [r, O] alpha A_p^T
  Matrix<T> bias;                   // [1, O]
  Matrix<T> b, b_t;                 // [r, I], [I, r]
  Matrix<T> x, z;                   // [R, I] beside [R, r]
  Matrix<T> dropped, y;             // [R, I], [R, O]
  Matrix<T> merged_t[Group::kMax];  // [I, O] W_p^T of each adapter of a group
  // The same as pairs along I and r, where the type is multiplied so; I rounded up to whole pairs.
  Matrix<Pair> weight_pairs, merged_pairs[Group::kMax], b_pairs, x_pairs, dropped_pairs;

  NallForwardScratch(Cutter& cut, const NallProblem& p, int64_t group, bool pairs)
      : weight_t(cut.packed<T>(p.in + p.rank, p.out)),
        a_t(weight_t.from(p.in, 0)),
        bias(cut.matrix<T>(1, p.out)),
        b(cut.matrix<T>(p.rank, p.in)),
        b_t(cut.packed<T>(p.in, p.rank)),
        x(cut.matrix<T>(kRowBlock, p.in + padded<T>(p.rank))),
        z(x.from(0, p.in)),
        dropped(cut.matrix<T>(kRowBlock, p.in)),
        y(cut.matrix<T>(kRowBlock, p.out)) {
    for (int64_t k = 0; k < group; ++k) merged_t[k] = cut.packed<T>(p.in, p.out);
    if (!pairs) return;
    const int64_t in = (p.in + 1) / 2, rank = (p.rank + 1) / 2;
    weight_pairs = cut.packed<Pair>(in + rank, p.out);
    for (int64_t k = 0; k < group; ++k) merged_pairs[k] = cut.packed<Pair>(in, p.out);
    b_pairs = cut.packed<Pair>(in, p.rank);
    x_pairs = cut.matrix<Pair>(kRowBlock, in + rank);
    dropped_pairs = cut.matrix<Pair>(kRowBlock, in);
  }
};

// y > 0 ? y : y * slope, but without 0 * inf for relu; NaN stays NaN.
template <typename T>
void activate(const NallProblem& p, T* y) {
  if (p.activation == Activation::relu)
    for (int64_t o = 0; o < p.out; ++o) y[o] = y[o] <= 0 ? T(0) : y[o];
  if (p.activation == Activation::leaky_relu)
    for (int64_t o = 0; o < p.out; ++o) y[o] = y[o] > 0 ? y[o] : y[o] * T(p.negative_slope);
}

template <typename S>
Prefetch prefetch_inputs(const NallProblem& p, const NextUnit<S>& next) {
  Prefetch fetch;
  next.rows(fetch, p.x, p.in);
  next.factors(fetch, p.A, p.A_stride, p.out, p.rank);
  next.factors(fetch, p.B, p.B_stride, p.rank, p.in);
  return fetch;
}

template <typename S>
class NallForward {
  using T = Compute<S>;
  using Scratch = NallForwardScratch<T>;

 public:
  NallForward(const NallProblem& p, const Schedule& schedule, void* y)
      : p_(p),
        schedule_(schedule),
        y_(static_cast<S*>(y)),
        dropout_(low_rank_dropout<T>(p)),
        group_(merge(p.rows) ? nall_forward_group<T>(p) : 1) {
    Cutter count(nullptr);
    Scratch needed(count, p, group_, kPairs<S>);
    Cutter cut(scratch_slab(count.used() * size_t(schedule.threads())));
    for (int t = 0; t < schedule.threads(); ++t) scratch_.emplace_back(cut, p, group_, kPairs<S>);
  }

  void run() {
    parallel(schedule_.threads(), [&](int thread) { work(thread); });
  }

 private:
  bool merge(int64_t rows) const { return !dropout_.active() && p_.in * p_.out < rows * (p_.in + p_.out); }

  void work(int thread) const {
    const Scratch& s = scratch_[size_t(thread)];
    load_transposed(static_cast<const S*>(p_.weight), p_.out, p_.in, T(1), s.weight_t);
    if (p_.bias) load_row(static_cast<const S*>(p_.bias), 1, p_.out, s.bias.data);
    if constexpr (kPairs<S>) pair_rows(s.weight_t, p_.in, p_.out, s.weight_pairs);
    schedule_.for_each_group(thread, group_, [&](const Group& group) {
      const bool merged = merge(schedule_.rows_of(group.segments[0].adapter));
      for (int k = 0; k < group.size; ++k) prepare(s, group.segments[k].adapter, merged ? k : kLowRank);
      group.for_each_unit([&](int k, int64_t u, int64_t next) {
        unit(s, schedule_.unit(u), merged ? k : kLowRank, NextUnit<S>(schedule_, thread, u, next));
      });
    });
  }

  // Of the adapter in place k of its group.
  void prepare(const Scratch& s, int64_t adapter, int k) const {
    const S* B = static_cast<const S*>(p_.B) + adapter * p_.B_stride;
    load_transposed(static_cast<const S*>(p_.A) + adapter * p_.A_stride, p_.out, p_.rank, T(p_.alpha), s.a_t);
    if (k != kLowRank) {
      load_matrix(B, p_.rank, p_.in, T(1), s.b);
      gemm(p_.in, p_.out, p_.rank, s.b.transposed(), s.a_t, s.weight_t, s.merged_t[k]);
      if constexpr (kPairs<S>) pair_rows(s.merged_t[k], p_.in, p_.out, s.merged_pairs[k]);
    } else {
      load_transposed(B, p_.rank, p_.in, T(1), s.b_t);
      if constexpr (kPairs<S>) {
        pair_rows(s.a_t, p_.rank, p_.out, s.weight_pairs.from((p_.in + 1) / 2, 0));
        pair_rows(s.b_t, p_.in, p_.rank, s.b_pairs);
      }
    }
  }

  void unit(const Scratch& s, const Schedule::Unit& unit, int k, const NextUnit<S>& next) const {
    const int64_t rows = unit.end - unit.begin;
    // Straight into y where that has whole vectors and no conversion is due.
    const bool direct = std::is_same_v<S, T> && p_.out % lanes<T> == 0;
    S* const y_rows = y_ + (unit.begin * p_.nodes + unit.slot) * p_.out;
    Matrix<T> y = s.y;
    if constexpr (std::is_same_v<S, T>)
      if (direct) y = {y_rows, p_.nodes * p_.out};
    if constexpr (kPairs<S>)
      multiply_pairs(s, unit, k, y, prefetch_inputs(p_, next));
    else
      multiply(s, unit, k, y, prefetch_inputs(p_, next));
    for (int64_t i = 0; i < rows && p_.activation != Activation::none; ++i) activate(p_, y.row(i));
    if (!direct) store_rows(y, rows, p_.out, y_rows, p_.nodes * p_.out);
  }

  void multiply(const Scratch& s, const Schedule::Unit& unit, int k, Matrix<T> y, Prefetch next) const {
    const int64_t rows = unit.end - unit.begin;
    load_rows<S>(p_.x, unit.begin, unit.slot, rows, p_.in, s.x);
    if (k == kLowRank) {
      if (dropout_.active()) drop_rows(s, unit);
      gemm(rows, p_.rank, p_.in, (dropout_.active() ? s.dropped : s.x).left(), s.b_t, kNothing, s.z);
      gemm(rows, p_.out, p_.in + p_.rank, s.x.left(), s.weight_t, bias(s), y, next);
    } else {
      gemm(rows, p_.out, p_.in, s.x.left(), s.merged_t[k], bias(s), y, next);
    }
  }

  void multiply_pairs(const Scratch& s, const Schedule::Unit& unit, int k, Matrix<T> y, Prefetch next) const {
    const int64_t rows = unit.end - unit.begin, in = (p_.in + 1) / 2, rank = (p_.rank + 1) / 2;
    for (int64_t i = 0; i < rows; ++i)
      pair_row(element<bf16>(p_.x, unit.begin + i, unit.slot), p_.x.feature, p_.in, s.x_pairs.row(i));
    if (k == kLowRank) {
      if (dropout_.active()) {
        load_rows<S>(p_.x, unit.begin, unit.slot, rows, p_.in, s.x);
        drop_rows(s, unit);
        for (int64_t i = 0; i < rows; ++i) pair_row(s.dropped.row(i), p_.in, s.dropped_pairs.row(i));
      }
      gemm(rows, p_.rank, in, (dropout_.active() ? s.dropped_pairs : s.x_pairs).left(), s.b_pairs, kNothing, s.z);
      for (int64_t i = 0; i < rows; ++i) pair_row(s.z.row(i), p_.rank, s.x_pairs.row(i) + in);
      gemm(rows, p_.out, in + rank, s.x_pairs.left(), s.weight_pairs, bias(s), y, next);
    } else {
      gemm(rows, p_.out, in, s.x_pairs.left(), s.merged_pairs[k], bias(s), y, next);
    }
  }

  void drop_rows(const Scratch& s, const Schedule::Unit& unit) const {
    for (int64_t row = unit.begin; row < unit.end; ++row) {
      T* const dropped = s.dropped.row(row - unit.begin);
      dropout_.factors(element_index(p_, row, unit.slot), p_.in, dropped);
      drop_row(s.x.row(row - unit.begin), dropped, p_.in, dropped);
    }
  }

  Matrix<T> bias(const Scratch& s) const { return p_.bias ? Matrix<T>{s.bias.data, 0} : kNothing; }

  static constexpr Matrix<T> kNothing{nullptr, 0};
  static constexpr int kLowRank = -1;  // in place of a place in a group: nothing was merged

  const NallProblem& p_;
  const Schedule& schedule_;
  S* const y_;
  const Dropout<T> dropout_;
  const int64_t group_;
  std::vector<Scratch> scratch_;  // by thread; made here, where running out of memory can still be thrown
};

template <typename S>
void nall_forward(const NallProblem& p, const Schedule& schedule, void* y) {
  NallForward<S>(p, schedule, y).run();
}

}  // namespace stlora::cpu::STLORA_ISA
