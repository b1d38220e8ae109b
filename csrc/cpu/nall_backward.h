// Backward of the NALL: dX, dW, db, dA, dB in one parallel region.
//
// A thread owns the rows of its units, and its own partial sums of dW and db; W, the current adapter and what it
// gathers for that adapter stay in L2, the tiles of x and of the gradient G (activation already undone) in L1/L2.
// x, G and dX move once. After a barrier the partial sums are added in the order of the threads: no atomics, the same
// bits from run to run.
//
// Merged order (no dropout, many rows):     W_p = W + alpha A_p B_p,  dX = G W_p,  D = G^T X,
//                                           dW += D,  dA_p = alpha D B_p^T,  dB_p = alpha A_p^T D.
// Low-rank order:  U = G alpha A_p,  Z = Xd alpha B_p^T,  Xd = mask * X,
//                                           dX = G W + mask * (U B_p),  dW += G^T X,  dA_p = G^T Z,  dB_p = U^T Xd.
// Without a mask, U stands behind G in the tile and B_p below W, so that dX = [G U] [W B_p] is one product.
#pragma once

#include "gradient_sums.h"
#include "nall_forward.h"

namespace stlora::cpu::STLORA_ISA {

template <typename T>
int64_t nall_backward_group(const NallProblem& p) {  // each keeps its W_p and D
  return group_size(2 * int64_t(sizeof(T)) * p.out * leading_dimension<T>(p.in));
}

template <typename S>
struct NallBackwardScratch {
  using T = Compute<S>;
  Right<T> weight, b;                    // [O, I] above [r, I]
  Right<T> a, b_t;                       // [O, r] alpha A_p, [I, r] alpha B_p^T
  Matrix<T> g, x, dx;                    // [R, O] beside room for U [R, r]; [R, I]
  Matrix<T> mask, dropped, low_rank_dx;  // [R, I]
  Matrix<T> z;                           // [R, r]
  Matrix<T> da, db;                      // [O, r], [r, I]  of this adapter
  Matrix<T> dweight, dbias;              // [O, I], [1, O]  of this thread
  Matrix<T> row;                         // [1, max(I, O)]
  Right<T> merged[Group::kMax];          // [O, I] W_p of each adapter of a group
  Matrix<T> d[Group::kMax];              // [O, I] its D
  PairTiles pairs;
  std::vector<Matrix<T>> slots;  // see FactorSums

  NallBackwardScratch(Cutter& cut, const NallProblem& p, int64_t group, const FactorSums<S>& sums, bool with_pairs)
      : weight(cut, p.out + p.rank, p.in, with_pairs),
        b(cut, weight.wide.from(p.out, 0), p.rank, p.in, with_pairs),
        a(cut, cut.matrix<T>(p.out, p.rank), p.out, p.rank, with_pairs),
        b_t(cut, p.in, p.rank, with_pairs),
        g(cut.matrix<T>(kRowBlock, p.out + padded<T>(p.rank))),
        x(cut.matrix<T>(kRowBlock, p.in)),
        dx(cut.matrix<T>(kRowBlock, p.in)),
        mask(cut.matrix<T>(kRowBlock, p.in)),
        dropped(cut.matrix<T>(kRowBlock, p.in)),
        low_rank_dx(cut.matrix<T>(kRowBlock, p.in)),
        z(cut.matrix<T>(kRowBlock, p.rank)),
        da(cut.matrix<T>(p.out, p.rank)),
        db(cut.matrix<T>(p.rank, p.in)),
        dweight(cut.matrix<T>(p.out, p.in)),
        dbias(cut.matrix<T>(1, p.out)),
        row(cut.matrix<T>(1, p.in > p.out ? p.in : p.out)),
        pairs(cut, (p.in > p.out ? p.in : p.out) + padded<T>(p.rank), with_pairs),
        slots(sums.cut(cut)) {
    for (int64_t k = 0; k < group; ++k) {
      merged[k] = Right<T>(cut, p.out, p.in, with_pairs);
      d[k] = cut.matrix<T>(p.out, p.in);
    }
  }
};

template <typename S>
class NallBackward {
  using T = Compute<S>;
  using Scratch = NallBackwardScratch<S>;

 public:
  NallBackward(const NallProblem& p, const Schedule& schedule, const Strided& grad, const void* y,
               const NallGradients& out)
      : p_(p),
        schedule_(schedule),
        grad_(grad),
        y_(static_cast<const S*>(y)),
        out_(out),
        dropout_(low_rank_dropout<T>(p)),
        factors_(out.A || out.B),
        group_(merge(p.rows) ? nall_backward_group<T>(p) : 1),
        factor_sums_(schedule, {{out.A, p.out, p.rank}, {out.B, p.rank, p.in}}) {
    Cutter count(nullptr);
    Scratch needed(count, p, group_, factor_sums_, kPairs<S>);
    Cutter cut(scratch_slab(count.used() * size_t(schedule.threads())));
    for (int t = 0; t < schedule.threads(); ++t) scratch_.emplace_back(cut, p, group_, factor_sums_, kPairs<S>);
  }

  void run() {
    parallel(schedule_.threads(), [&](int thread) { work(thread); }, [&](int thread) { finish(thread); });
  }

 private:
  // The cheaper order for this adapter, counted in multiplications.
  bool merge(int64_t rows) const {
    if (dropout_.active()) return false;
    const int64_t io = p_.in * p_.out, r = p_.rank, sum = r * (p_.in + p_.out);
    int64_t merged = 0, low_rank = 0;
    if (out_.x) merged += (rows + r) * io, low_rank += rows * (io + sum);
    if (out_.weight || factors_) merged += rows * io;
    if (out_.weight) low_rank += rows * io;
    if (factors_) merged += 2 * r * io, low_rank += 2 * rows * sum;
    return merged < low_rank;
  }

  void work(int thread) {
    const Scratch& s = scratch_[size_t(thread)];
    load_matrix(static_cast<const S*>(p_.weight), p_.out, p_.in, T(1), s.weight.wide);
    s.weight.template written<S>(0, p_.out, p_.in);
    fill_zero(s.dweight, p_.out);
    fill_zero(s.dbias, 1);
    int64_t waiting = 0;  // rows in the tile, of as many units as it holds, that dW has yet to get
    const auto add_to_dweight = [&](Prefetch next) {
      transposed_times<S>(p_.out, p_.in, waiting, s.g, s.x, s.dweight, s.dweight, s.pairs, next);
      waiting = 0;
    };

    schedule_.for_each_group(thread, group_, [&](const Group& group) {
      const bool merged = merge(schedule_.rows_of(group.segments[0].adapter));
      for (int k = 0; k < group.size; ++k) {
        load_adapter(s, group.segments[k].adapter);
        if (merged && out_.x) {
          gemm(p_.out, p_.in, p_.rank, s.a.wide.left(), s.b.wide, s.weight.wide, s.merged[k].wide);
          s.merged[k].template written<S>(0, p_.out, p_.in);
        }
      }
      group.for_each_unit([&](int k, int64_t u, int64_t next_u) {
        const bool first = u == group.segments[k].first;
        const Schedule::Unit unit = schedule_.unit(u);
        const NextUnit<S> next(schedule_, thread, u, next_u);
        const Matrix<T> x = s.x.from(waiting, 0), g = s.g.from(waiting, 0);
        load_unit(s, unit, x, g);
        if (merged)
          merged_unit(s, unit, x, g, k, first, next);
        else
          low_rank_unit(s, unit, x, g, first, next);
        if (out_.weight && !(merged && factors_)) waiting += unit.end - unit.begin;
        if (waiting + schedule_.row_block() > kRowBlock) add_to_dweight(prefetch_gradient(next));
      });
      for (int k = 0; k < group.size && factors_; ++k) {
        if (merged) {
          load_adapter(s, group.segments[k].adapter);
          gemm(p_.out, p_.rank, p_.in, s.d[k].left(), s.b_t.wide, kNothing, s.da);
          gemm(p_.rank, p_.in, p_.out, s.a.wide.transposed(), s.d[k], kNothing, s.db);
          if (out_.weight) add(s.d[k], p_.out, s.dweight);
        }
        const Matrix<T> sums[] = {s.da, s.db};
        factor_sums_.deliver(thread, group.segments[k], s.slots, sums);
      }
    });
    if (waiting > 0) add_to_dweight({});
  }

  void load_adapter(const Scratch& s, int64_t adapter) const {
    const S* B = static_cast<const S*>(p_.B) + adapter * p_.B_stride;
    load_matrix(static_cast<const S*>(p_.A) + adapter * p_.A_stride, p_.out, p_.rank, T(p_.alpha), s.a.wide);
    load_matrix(B, p_.rank, p_.in, T(1), s.b.wide);
    load_transposed(B, p_.rank, p_.in, T(p_.alpha), s.b_t.wide);
    s.a.template written<S>(0, p_.out, p_.rank);
    s.b_t.template written<S>(0, p_.in, p_.rank);
    if (dropout_.active())
      s.b.template written<S>(0, p_.rank, p_.in);
    else
      s.weight.template written<S>(p_.out, p_.out + p_.rank, p_.in);
  }

  void load_unit(const Scratch& s, const Schedule::Unit& unit, Matrix<T> x, Matrix<T> g) const {
    const int64_t rows = unit.end - unit.begin;
    load_rows<S>(p_.x, unit.begin, unit.slot, rows, p_.in, x);
    load_rows<S>(grad_, unit.begin, unit.slot, rows, p_.out, g);
    const T slope = p_.activation == Activation::relu ? T(0) : T(p_.negative_slope);
    for (int64_t i = 0; i < rows && p_.activation != Activation::none; ++i) {
      const S* const y = y_ + ((unit.begin + i) * p_.nodes + unit.slot) * p_.out;
      T* const row = g.row(i);
      for (int64_t o = 0; o < p_.out; ++o) row[o] = widen(y[o]) > 0 ? row[o] : slope == 0 ? T(0) : row[o] * slope;
    }
    if (out_.bias) add_columns(g, rows, p_.out, s.dbias.data);
  }

  void merged_unit(const Scratch& s, const Schedule::Unit& unit, Matrix<T> x, Matrix<T> g, int k, bool first,
                   const NextUnit<S>& next) const {
    const int64_t rows = unit.end - unit.begin;
    if (out_.x) {
      const Matrix<T> dx = dx_rows(s, unit);
      rows_times<S>(rows, p_.in, p_.out, g, s.merged[k], kNothing, dx, s.pairs, prefetch_inputs(p_, next));
      store_dx(dx, unit);
    }
    if (factors_)
      transposed_times<S>(p_.out, p_.in, rows, g, x, first ? kNothing : s.d[k], s.d[k], s.pairs,
                          prefetch_gradient(next));
  }

  Prefetch prefetch_gradient(const NextUnit<S>& next) const {
    Prefetch fetch;
    next.rows(fetch, grad_, p_.out);
    return fetch;
  }

  // Where dX of the unit is computed: in the caller's array if that takes whole vectors and no conversion.
  Matrix<T> dx_rows(const Scratch& s, const Schedule::Unit& unit) const {
    if constexpr (std::is_same_v<S, T>)
      if (p_.in % lanes<T> == 0) return {dx_out(unit, unit.begin), p_.nodes * p_.in};
    return s.dx;
  }

  S* dx_out(const Schedule::Unit& unit, int64_t row) const {
    return static_cast<S*>(out_.x) + (row * p_.nodes + unit.slot) * p_.in;
  }

  void low_rank_unit(const Scratch& s, const Schedule::Unit& unit, Matrix<T> x, Matrix<T> g, bool first,
                     const NextUnit<S>& next) const {
    const int64_t rows = unit.end - unit.begin;
    const Matrix<T> u = g.from(0, p_.out);  // behind g
    Matrix<T> low_rank_x = x;
    if (dropout_.active()) {
      low_rank_x = s.dropped;
      for (int64_t i = 0; i < rows; ++i) {
        T *mask = s.mask.row(i), *dropped = s.dropped.row(i);
        dropout_.factors(element_index(p_, unit.begin + i, unit.slot), p_.in, mask);
        drop_row(x.row(i), mask, p_.in, dropped);
        for (int64_t j = p_.in; j < padded<T>(p_.in); ++j) dropped[j] = 0;
      }
    }
    if (out_.x || factors_) rows_times<S>(rows, p_.rank, p_.out, g, s.a, kNothing, u, s.pairs);
    if (out_.x) {
      const Matrix<T> dx = dropout_.active() ? s.dx : dx_rows(s, unit);
      Prefetch fetch = prefetch_inputs(p_, next);
      next.rows(fetch, grad_, p_.out);  // dW may not be due at this unit
      rows_times<S>(rows, p_.in, dropout_.active() ? p_.out : p_.out + p_.rank, g, s.weight, kNothing, dx, s.pairs,
                    fetch);
      if (dropout_.active()) {
        rows_times<S>(rows, p_.in, p_.rank, u, s.b, kNothing, s.low_rank_dx, s.pairs);
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < p_.in; ++j)
            s.dx.row(i)[j] += s.mask.row(i)[j] == 0 ? T(0) : s.mask.row(i)[j] * s.low_rank_dx.row(i)[j];
      }
      store_dx(dx, unit);
    }
    if (factors_) {
      rows_times<S>(rows, p_.rank, p_.in, low_rank_x, s.b_t, kNothing, s.z, s.pairs);
      transposed_times<S>(p_.out, p_.rank, rows, g, s.z, first ? kNothing : s.da, s.da, s.pairs);
      transposed_times<S>(p_.rank, p_.in, rows, u, low_rank_x, first ? kNothing : s.db, s.db, s.pairs);
    }
  }

  void store_dx(Matrix<T> dx, const Schedule::Unit& unit) const {
    if (static_cast<const void*>(dx.data) == dx_out(unit, unit.begin)) return;
    store_rows(dx, unit.end - unit.begin, p_.in, dx_out(unit, unit.begin), p_.nodes * p_.in);
  }

  void finish(int thread) const {
    const int threads = schedule_.threads();
    T* const row = scratch_[size_t(thread)].row.data;
    sum_over_threads<S>(thread, threads, {out_.weight, p_.out, p_.in}, row,
                        [&](int t) { return scratch_[size_t(t)].dweight; });
    sum_over_threads<S>(thread, threads, {out_.bias, 1, p_.out}, row, [&](int t) { return scratch_[size_t(t)].dbias; });
    if (factors_) factor_sums_.finish(thread, [&](int t) -> auto& { return scratch_[size_t(t)].slots; });
  }

  static constexpr Matrix<T> kNothing{nullptr, 0};

  const NallProblem& p_;
  const Schedule& schedule_;
  const Strided& grad_;
  const S* y_;
  const NallGradients& out_;
  const Dropout<T> dropout_;
  const bool factors_;
  const int64_t group_;
  FactorSums<S> factor_sums_;
  std::vector<Scratch> scratch_;  // by thread
};

template <typename S>
void nall_backward(const NallProblem& p, const Schedule& schedule, const Strided& grad, const void* y,
                   const NallGradients& gradients) {
  NallBackward<S>(p, schedule, grad, y, gradients).run();
}

}  // namespace stlora::cpu::STLORA_ISA
