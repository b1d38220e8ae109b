// Backward of the NSP stack: dh and, per layer, dw, dW, db, dA, dB in one parallel region.
//
// A thread takes the gradient G of a tile of a node's rows down through all layers while it stays in L1/L2. Of each
// layer it reads the input that the forward pass saved (recomputing it would cost the whole forward pass again), and
// recomputes sigma, its derivative and the dropout mask from it. Per layer:
//   W_lp = W_l + alpha A_lp B_lp,   dS = G W_lp,   D = G^T s,   db += sum G,   dW += D,
//   dA_lp = alpha D B_lp^T,  dB_lp = alpha A_lp^T D (once per adapter),   and G through sigma (sigma.h);
// or, where that is cheaper, in the low-rank order (nall_backward.h):
//   U = G alpha A_lp,   Z = s alpha B_lp^T,   dS = [G U] [W_l B_lp],   dW += G^T s,   dA_lp += G^T Z,   dB_lp += U^T s.
#pragma once

#include "gradient_sums.h"
#include "nsp_forward.h"

namespace stlora::cpu::STLORA_ISA {

template <typename T>
int64_t nsp_backward_group(const NspProblem& p) {  // each keeps its W_lp and D of all layers
  return group_size(2 * int64_t(sizeof(T)) * p.depth * p.features * leading_dimension<T>(p.features));
}

template <typename S>
struct NspBackwardScratch {
  using T = Compute<S>;
  std::vector<Right<T>> weight;         // L x [D, D] above [r, D] B_p
  std::vector<Right<T>> a, b_t;         // L x [D, r] alpha A_p, alpha B_p^T
  std::vector<Right<T>> merged;         // group x L x [D, D]
  std::vector<Matrix<T>> d;             // group x L x [D, D]
  std::vector<Matrix<T>> dweight;       // L x [D, D] of this thread
  std::vector<Matrix<T>> factors;       // dA [D, r], dB [r, D] of layer 0, then of layer 1, ...: this adapter's
  Matrix<T> norm_weight, dnorm, dbias;  // [L, D]; sums of this thread
  Matrix<T> g, u;                       // [R, D] beside [R, r]
  Matrix<T> h, f, s, z, ds;             // [R, D]; z [R, r]
  Matrix<T> inverse, dnorm_tile;        // [1, R] 1 / rms, [1, D]
  PairTiles pairs;
  std::vector<Matrix<T>> slots;  // see FactorSums

  NspBackwardScratch(Cutter& cut, const NspProblem& p, int64_t group, const FactorSums<S>& sums, bool with_pairs)
      : norm_weight(cut.matrix<T>(p.depth, p.features)),
        dnorm(cut.matrix<T>(p.depth, p.features)),
        dbias(cut.matrix<T>(p.depth, p.features)),
        g(cut.matrix<T>(kRowBlock, p.features + padded<T>(max_rank(p)))),
        u(g.from(0, p.features)),
        h(cut.matrix<T>(kRowBlock, p.features)),
        f(cut.matrix<T>(kRowBlock, p.features)),
        s(cut.matrix<T>(kRowBlock, p.features)),
        z(cut.matrix<T>(kRowBlock, max_rank(p))),
        ds(cut.matrix<T>(kRowBlock, p.features)),
        inverse(cut.matrix<T>(1, kRowBlock)),
        dnorm_tile(cut.matrix<T>(1, p.features)),
        pairs(cut, p.features + padded<T>(max_rank(p)), with_pairs),
        slots(sums.cut(cut)) {
    const int64_t D = p.features;
    for (int64_t l = 0; l < p.depth; ++l) {
      const int64_t rank = p.layers[l].rank;
      weight.emplace_back(cut, D + rank, D, with_pairs);
      dweight.push_back(cut.matrix<T>(D, D));
      a.emplace_back(cut, cut.matrix<T>(D, rank), D, rank, with_pairs);
      b_t.emplace_back(cut, D, rank, with_pairs);
      factors.push_back(cut.matrix<T>(D, rank));
      factors.push_back(cut.matrix<T>(rank, D));
    }
    for (int64_t m = 0; m < group * p.depth; ++m) {
      merged.emplace_back(cut, D, D, with_pairs);
      d.push_back(cut.matrix<T>(D, D));
    }
  }
};

template <typename S>
class NspBackward {
  using T = Compute<S>;
  using Scratch = NspBackwardScratch<S>;

 public:
  NspBackward(const NspProblem& p, const Schedule& schedule, const Strided& grad, const void* saved, void* dh,
              const NspLayerGradients* out)
      : p_(p),
        schedule_(schedule),
        grad_(grad),
        saved_(const_cast<void*>(saved)),  // read only: saved_rows serves the forward pass too
        dh_(static_cast<S*>(dh)),
        out_(out),
        lowest_(lowest_wanted(p, dh, out)),
        group_(merge(p.rows) ? nsp_backward_group<T>(p) : 1),
        factor_sums_(schedule, factor_outputs(p, out)) {
    Cutter count(nullptr);
    Scratch needed(count, p, group_, factor_sums_, kPairs<S>);
    Cutter cut(scratch_slab(count.used() * size_t(schedule.threads())));
    for (int t = 0; t < schedule.threads(); ++t) scratch_.emplace_back(cut, p, group_, factor_sums_, kPairs<S>);
  }

  void run() {
    parallel(schedule_.threads(), [&](int thread) { work(thread); }, [&](int thread) { finish(thread); });
  }

 private:
  static std::vector<Output> factor_outputs(const NspProblem& p, const NspLayerGradients* out) {
    std::vector<Output> outputs;
    for (int64_t l = 0; l < p.depth; ++l) {
      outputs.push_back({out[l].A, p.features, p.layers[l].rank});
      outputs.push_back({out[l].B, p.layers[l].rank, p.features});
    }
    return outputs;
  }

  // The lowest layer whose input gradient or parameters anybody wants: below it nothing is computed.
  static int64_t lowest_wanted(const NspProblem& p, const void* dh, const NspLayerGradients* out) {
    if (dh) return 0;
    for (int64_t l = 0; l < p.depth; ++l)
      if (out[l].norm_weight || out[l].weight || out[l].bias || out[l].A || out[l].B) return l;
    return p.depth;
  }

  bool wants_factors(int64_t l) const { return out_[l].A || out_[l].B; }
  bool wants_inputs(int64_t l) const { return dh_ || out_[l].norm_weight || l > lowest_; }

  // The cheaper order, counted in multiplications beyond the shared layer's, if all gradients are wanted: 3 D D r for
  // the adapter against 5 D r for each row.
  bool merge(int64_t rows) const { return 3 * p_.features < 5 * rows; }

  void work(int thread) {
    const Scratch& s = scratch_[size_t(thread)];
    const int64_t D = p_.features;
    fill_zero(s.dnorm, p_.depth);
    fill_zero(s.dbias, p_.depth);
    for (int64_t l = lowest_; l < p_.depth; ++l) {
      load_matrix(static_cast<const S*>(p_.layers[l].weight), D, D, T(1), s.weight[size_t(l)].wide);
      s.weight[size_t(l)].template written<S>(0, D, D);
      load_row(static_cast<const S*>(p_.layers[l].norm_weight), 1, D, s.norm_weight.row(l));
    }
    for (int64_t l = 0; l < p_.depth; ++l) fill_zero(s.dweight[size_t(l)], D);
    schedule_.for_each_group(thread, group_, [&](const Group& group) {
      const bool merged = merge(schedule_.rows_of(group.segments[0].adapter));
      for (int k = 0; k < group.size; ++k)
        for (int64_t l = lowest_; l < p_.depth; ++l) {
          load_adapter(s, group.segments[k].adapter, l);
          if (merged && wants_inputs(l)) merge_adapter(s, l, s.merged[size_t(k * p_.depth + l)]);
        }
      group.for_each_unit([&](int k, int64_t u, int64_t next) {
        unit(s, schedule_.unit(u), merged ? k : -1, u == group.segments[k].first,
             NextUnit<S>(schedule_, thread, u, next));
      });
      for (int k = 0; k < group.size; ++k) {
        for (int64_t l = lowest_; l < p_.depth && merged; ++l) finish_adapter(s, group.segments[k].adapter, k, l);
        factor_sums_.deliver(thread, group.segments[k], s.slots, s.factors.data());
      }
    });
  }

  void load_adapter(const Scratch& s, int64_t adapter, int64_t l) const {
    const NspLayer& layer = p_.layers[l];
    const int64_t D = p_.features;
    const S* B = static_cast<const S*>(layer.B) + adapter * layer.B_stride;
    const Right<T>&weight = s.weight[size_t(l)], &a = s.a[size_t(l)], &b_t = s.b_t[size_t(l)];
    load_matrix(static_cast<const S*>(layer.A) + adapter * layer.A_stride, D, layer.rank, T(p_.alpha), a.wide);
    load_matrix(B, layer.rank, D, T(1), weight.wide.from(D, 0));
    load_transposed(B, layer.rank, D, T(p_.alpha), b_t.wide);
    a.template written<S>(0, D, layer.rank);
    b_t.template written<S>(0, D, layer.rank);
    weight.template written<S>(D, D + layer.rank, D);
  }

  void merge_adapter(const Scratch& s, int64_t l, const Right<T>& merged) const {
    const int64_t D = p_.features;
    const Matrix<T> weight = s.weight[size_t(l)].wide;
    gemm(D, D, p_.layers[l].rank, s.a[size_t(l)].wide.left(), weight.from(D, 0), weight, merged.wide);
    merged.template written<S>(0, D, D);
  }

  // What D of an adapter says, in the merged order.
  void finish_adapter(const Scratch& s, int64_t adapter, int k, int64_t l) const {
    if (!wants_factors(l)) return;
    const int64_t D = p_.features, rank = p_.layers[l].rank;
    const Matrix<T> d = s.d[size_t(k * p_.depth + l)];
    if (group_ > 1) load_adapter(s, adapter, l);
    if (out_[l].weight) add(d, D, s.dweight[size_t(l)]);
    gemm(D, rank, D, d.left(), s.b_t[size_t(l)].wide, kNothing, s.factors[size_t(2 * l)]);
    gemm(rank, D, D, s.a[size_t(l)].wide.transposed(), d, kNothing, s.factors[size_t(2 * l + 1)]);
  }

  // G of the tile through all layers; k is the adapter's place in the group, -1 in the low-rank order.
  void unit(const Scratch& s, const Schedule::Unit& unit, int k, bool first, const NextUnit<S>& next) const {
    const int64_t D = p_.features, rows = unit.end - unit.begin;
    load_rows<S>(grad_, unit.begin, unit.slot, rows, D, s.g);
    for (int64_t l = p_.depth - 1; l >= lowest_; --l) {
      const Sigma<T> sigma(p_, l, s.norm_weight.row(l));
      const Matrix<const T> h = load_sigma(s, sigma, unit, l);
      if (out_[l].bias) add_columns(s.g, rows, D, s.dbias.row(l));
      if (k >= 0)
        merged_layer(s, rows, l, k, first, prefetch(next, l));
      else
        low_rank_layer(s, rows, l, first, prefetch(next, l));
      if (wants_inputs(l)) sigma.backward(h, s.inverse.data, s.f, s.ds, rows, s.dnorm_tile.data, s.dnorm.row(l), s.g);
    }
    if (dh_) store_rows(s.g, rows, D, dh_ + (unit.begin * p_.nodes + unit.slot) * D, p_.nodes * D);
  }

  void merged_layer(const Scratch& s, int64_t rows, int64_t l, int k, bool first, Prefetch next) const {
    const int64_t D = p_.features;
    const size_t m = size_t(k * p_.depth + l);
    if (wants_factors(l))
      transposed_times<S>(D, D, rows, s.g, s.s, first ? kNothing : s.d[m], s.d[m], s.pairs);
    else if (out_[l].weight)
      transposed_times<S>(D, D, rows, s.g, s.s, s.dweight[size_t(l)], s.dweight[size_t(l)], s.pairs);
    if (wants_inputs(l)) rows_times<S>(rows, D, D, s.g, s.merged[m], kNothing, s.ds, s.pairs, next);
  }

  void low_rank_layer(const Scratch& s, int64_t rows, int64_t l, bool first, Prefetch next) const {
    const int64_t D = p_.features, rank = p_.layers[l].rank;
    const size_t layer = size_t(l);
    if (wants_factors(l) || wants_inputs(l)) rows_times<S>(rows, rank, D, s.g, s.a[layer], kNothing, s.u, s.pairs);
    if (out_[l].weight) transposed_times<S>(D, D, rows, s.g, s.s, s.dweight[layer], s.dweight[layer], s.pairs);
    if (wants_factors(l)) {
      const Matrix<T> da = s.factors[2 * layer], db = s.factors[2 * layer + 1];
      rows_times<S>(rows, rank, D, s.s, s.b_t[layer], kNothing, s.z, s.pairs);
      transposed_times<S>(D, rank, rows, s.g, s.z, first ? kNothing : da, da, s.pairs);
      transposed_times<S>(rank, D, rows, s.u, s.s, first ? kNothing : db, db, s.pairs);
    }
    if (wants_inputs(l)) rows_times<S>(rows, D, D + rank, s.g, s.weight[layer], kNothing, s.ds, s.pairs, next);
  }

  // The layer's input of a tile, and from it s, f and 1 / rms.
  Matrix<const T> load_sigma(const Scratch& s, const Sigma<T>& sigma, const Schedule::Unit& unit, int64_t l) const {
    const int64_t D = p_.features, rows = unit.end - unit.begin;
    Matrix<const T> h{s.h.data, s.h.ld};
    if (l > 0 && D % lanes<T> == 0)  // whole vectors: read where it stands
      h = {saved_rows<T>(p_, saved_, unit.slot, l, unit.begin), D};
    else
      for (int64_t i = 0; i < rows; ++i)
        if (l > 0)
          load_row(saved_rows<T>(p_, saved_, unit.slot, l, unit.begin + i), 1, D, s.h.row(i));
        else
          load_row(element<S>(p_.h, unit.begin + i, unit.slot), p_.h.feature, D, s.h.row(i));
    sigma.inverse_rms(h, rows, s.inverse.data);
    for (int64_t i = 0; i < rows; ++i)
      sigma.row(h.row(i), s.inverse.data[i], element_index(p_, unit.begin + i, unit.slot), s.f.row(i), s.s.row(i));
    return h;
  }

  Prefetch prefetch(const NextUnit<S>& next, int64_t l) const {
    const NspLayer& layer = p_.layers[l];
    Prefetch fetch;
    if (l == lowest_) next.rows(fetch, grad_, p_.features);
    if (l == 0) next.rows(fetch, p_.h, p_.features);
    next.factors(fetch, layer.A, layer.A_stride, p_.features, layer.rank);
    next.factors(fetch, layer.B, layer.B_stride, layer.rank, p_.features);
    return fetch;
  }

  void finish(int thread) const {
    const int threads = schedule_.threads();
    const int64_t D = p_.features;
    T* const row = scratch_[size_t(thread)].dnorm_tile.data;
    for (int64_t l = 0; l < p_.depth; ++l) {
      auto part = [&](const Matrix<T>& all) { return Matrix<T>{all.row(l), all.ld}; };
      sum_over_threads<S>(thread, threads, {out_[l].weight, D, D}, row,
                          [&](int t) { return scratch_[size_t(t)].dweight[size_t(l)]; });
      sum_over_threads<S>(thread, threads, {out_[l].bias, 1, D}, row,
                          [&](int t) { return part(scratch_[size_t(t)].dbias); });
      sum_over_threads<S>(thread, threads, {out_[l].norm_weight, 1, D}, row,
                          [&](int t) { return part(scratch_[size_t(t)].dnorm); });
    }
    factor_sums_.finish(thread, [&](int t) -> auto& { return scratch_[size_t(t)].slots; });
  }

  static constexpr Matrix<T> kNothing{nullptr, 0};

  const NspProblem& p_;
  const Schedule& schedule_;
  const Strided& grad_;
  void* saved_;
  S* dh_;
  const NspLayerGradients* out_;
  const int64_t lowest_, group_;
  FactorSums<S> factor_sums_;
  std::vector<Scratch> scratch_;  // by thread
};

template <typename S>
void nsp_backward(const NspProblem& p, const Schedule& schedule, const Strided& grad, const void* saved, void* dh,
                  const NspLayerGradients* layers) {
  NspBackward<S>(p, schedule, grad, saved, dh, layers).run();
}

}  // namespace stlora::cpu::STLORA_ISA
