// Forward of the NSP stack on one thread's run of (node, row block) units.
//
// A thread takes a tile of rows through all layers before it touches another: the tile and its sigma stay in L1/L2, the
// weights of all layers in L2. The residual is the addend of the product, so that it costs nothing. h is read once, y
// written once, the factors read once per adapter.
//
// Two orders of contraction, by cost, as in nall_forward.h: W_lp = W_l + alpha A_lp B_lp built once per adapter; or
// z = s B_lp^T and h += [s z] [W_l alpha A_lp]^T.
#pragma once

#include <vector>

#include "next_unit.h"
#include "parallel.h"
#include "products.h"
#include "sigma.h"

namespace stlora::cpu::STLORA_ISA {

inline uint64_t element_index(const NspProblem& p, int64_t row, int64_t slot) {
  return uint64_t(row * p.nodes + slot) * uint64_t(p.features);
}

template <typename T>
T* saved_rows(const NspProblem& p, void* saved, int64_t slot, int64_t layer, int64_t row) {  // layer >= 1
  return static_cast<T*>(saved) + ((slot * (p.depth - 1) + layer - 1) * p.rows + row) * p.features;
}

inline int64_t max_rank(const NspProblem& p) {
  int64_t rank = 1;
  for (int64_t l = 0; l < p.depth; ++l) rank = p.layers[l].rank > rank ? p.layers[l].rank : rank;
  return rank;
}

template <typename T>
int64_t nsp_forward_group(const NspProblem& p) {  // each keeps its W_lp of all layers
  return group_size(int64_t(sizeof(T)) * p.depth * p.features * leading_dimension<T>(p.features));
}

template <typename T>
struct NspForwardScratch {
  std::vector<Right<T>> weight_t;    // L x [D, D] W^T above [r, D] alpha A_p^T
  std::vector<Right<T>> b_t;         // L x [D, r]
  std::vector<Right<T>> merged_t;    // group x L x [D, D]
  Matrix<T> bias, norm_weight;       // [L, D]
  Matrix<T> b, h, s, z, f, inverse;  // [r, D], [R, D], [R, D] beside [R, r], [1, D], [1, R] 1 / rms
  PairTiles pairs;

  NspForwardScratch(Cutter& cut, const NspProblem& p, int64_t group, bool with_pairs)
      : bias(cut.matrix<T>(p.depth, p.features)),
        norm_weight(cut.matrix<T>(p.depth, p.features)),
        b(cut.matrix<T>(max_rank(p), p.features)),
        h(cut.matrix<T>(kRowBlock, p.features)),
        s(cut.matrix<T>(kRowBlock, p.features + padded<T>(max_rank(p)))),
        z(s.from(0, p.features)),
        f(cut.matrix<T>(1, p.features)),
        inverse(cut.matrix<T>(1, kRowBlock)),
        pairs(cut, p.features + padded<T>(max_rank(p)), with_pairs) {
    const int64_t D = p.features;
    for (int64_t l = 0; l < p.depth; ++l) {
      weight_t.emplace_back(cut, D + p.layers[l].rank, D, with_pairs);
      b_t.emplace_back(cut, D, p.layers[l].rank, with_pairs);
    }
    for (int64_t m = 0; m < group * p.depth; ++m) merged_t.emplace_back(cut, D, D, with_pairs);
  }
};

template <typename S>
class NspForward {
  using T = Compute<S>;
  using Scratch = NspForwardScratch<T>;

 public:
  NspForward(const NspProblem& p, const Schedule& schedule, void* y, void* saved)
      : p_(p),
        schedule_(schedule),
        y_(static_cast<S*>(y)),
        saved_(saved),
        group_(merge(p.rows) ? nsp_forward_group<T>(p) : 1) {
    Cutter count(nullptr);
    Scratch needed(count, p, group_, kPairs<S>);
    Cutter cut(scratch_slab(count.used() * size_t(schedule.threads())));
    for (int t = 0; t < schedule.threads(); ++t) scratch_.emplace_back(cut, p, group_, kPairs<S>);
  }

  void run() {
    parallel(schedule_.threads(), [&](int thread) { work(thread); });
  }

 private:
  bool merge(int64_t rows) const { return p_.features < 2 * rows; }

  void work(int thread) const {
    const Scratch& s = scratch_[size_t(thread)];
    for (int64_t l = 0; l < p_.depth; ++l) {
      const NspLayer& layer = p_.layers[l];
      load_transposed(static_cast<const S*>(layer.weight), p_.features, p_.features, T(1), s.weight_t[size_t(l)].wide);
      s.weight_t[size_t(l)].template written<S>(0, p_.features, p_.features);
      load_row(static_cast<const S*>(layer.norm_weight), 1, p_.features, s.norm_weight.row(l));
      if (layer.bias) load_row(static_cast<const S*>(layer.bias), 1, p_.features, s.bias.row(l));
    }
    schedule_.for_each_group(thread, group_, [&](const Group& group) {
      const bool merged = merge(schedule_.rows_of(group.segments[0].adapter));
      const auto merged_t = [&](int k) { return merged ? &s.merged_t[size_t(k * p_.depth)] : nullptr; };
      for (int k = 0; k < group.size; ++k) prepare(s, group.segments[k].adapter, merged_t(k));
      group.for_each_unit([&](int k, int64_t u, int64_t next) {
        unit(s, schedule_.unit(u), merged_t(k), NextUnit<S>(schedule_, thread, u, next));
      });
    });
  }

  void prepare(const Scratch& s, int64_t adapter, const Right<T>* merged_t) const {
    const int64_t D = p_.features;
    for (int64_t l = 0; l < p_.depth; ++l) {
      const NspLayer& layer = p_.layers[l];
      const Right<T>& weight_t = s.weight_t[size_t(l)];
      const Matrix<T> a_t = weight_t.wide.from(D, 0);
      const S* B = static_cast<const S*>(layer.B) + adapter * layer.B_stride;
      load_transposed(static_cast<const S*>(layer.A) + adapter * layer.A_stride, D, layer.rank, T(p_.alpha), a_t);
      if (merged_t) {
        load_matrix(B, layer.rank, D, T(1), s.b);
        gemm(D, D, layer.rank, s.b.transposed(), a_t, weight_t.wide, merged_t[l].wide);
        merged_t[l].template written<S>(0, D, D);
      } else {
        load_transposed(B, layer.rank, D, T(1), s.b_t[size_t(l)].wide);
        s.b_t[size_t(l)].template written<S>(0, D, layer.rank);
        weight_t.template written<S>(D, D + layer.rank, D);
      }
    }
  }

  void unit(const Scratch& s, const Schedule::Unit& unit, const Right<T>* merged_t, const NextUnit<S>& next) const {
    const int64_t D = p_.features, rows = unit.end - unit.begin;
    load_rows<S>(p_.h, unit.begin, unit.slot, rows, D, s.h);
    for (int64_t l = 0; l < p_.depth; ++l) {
      const int64_t rank = p_.layers[l].rank;
      through_sigma(s, unit, l);
      if (!merged_t) rows_times<S>(rows, rank, D, s.s, s.b_t[size_t(l)], kNothing, s.z, s.pairs);
      rows_times<S>(rows, D, merged_t ? D : D + rank, s.s, merged_t ? merged_t[l] : s.weight_t[size_t(l)], s.h, s.h,
                    s.pairs, prefetch(next, l));
    }
    store_rows(s.h, rows, D, y_ + (unit.begin * p_.nodes + unit.slot) * D, p_.nodes * D);
  }

  // sigma of the tile; the layer's input is saved, and its bias added to the residual.
  void through_sigma(const Scratch& s, const Schedule::Unit& unit, int64_t l) const {
    const int64_t D = p_.features, rows = unit.end - unit.begin;
    const Sigma<T> sigma(p_, l, s.norm_weight.row(l));
    sigma.inverse_rms({s.h.data, s.h.ld}, rows, s.inverse.data);
    for (int64_t i = 0; i < rows; ++i) {
      T* const h = s.h.row(i);
      if (l > 0 && saved_) store_row(h, D, saved_rows<T>(p_, saved_, unit.slot, l, unit.begin + i));
      sigma.row(h, s.inverse.data[i], element_index(p_, unit.begin + i, unit.slot), s.f.data, s.s.row(i));
      if (p_.layers[l].bias) add_row(s.bias.row(l), D, h);
    }
  }

  Prefetch prefetch(const NextUnit<S>& next, int64_t l) const {
    const NspLayer& layer = p_.layers[l];
    Prefetch fetch;
    if (l + 1 == p_.depth) next.rows(fetch, p_.h, p_.features);
    next.factors(fetch, layer.A, layer.A_stride, p_.features, layer.rank);
    next.factors(fetch, layer.B, layer.B_stride, layer.rank, p_.features);
    return fetch;
  }

  static constexpr Matrix<T> kNothing{nullptr, 0};

  const NspProblem& p_;
  const Schedule& schedule_;
  S* const y_;
  void* const saved_;
  const int64_t group_;
  std::vector<Scratch> scratch_;  // by thread; made here, where running out of memory can still be thrown
};

template <typename S>
void nsp_forward(const NspProblem& p, const Schedule& schedule, void* y, void* saved) {
  NspForward<S>(p, schedule, y, saved).run();
}

}  // namespace stlora::cpu::STLORA_ISA
