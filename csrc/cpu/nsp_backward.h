// Backward of the NSP stack: dh and, per layer, dw, dW, db, dA, dB in one parallel region.
//
// A thread takes the gradient G of a chunk of a node's rows down through all layers; G stays in L2. Of each layer it
// reads the input that the forward pass saved (recomputing it would cost the whole forward pass again), and recomputes
// sigma, its derivative and the dropout mask from it, tile by tile. Per chunk and layer:
//   W_lp = W_l + alpha A_lp B_lp,   dS = G W_lp,   D = G^T s,   db += sum G,   dW += D,
//   dA_lp += alpha D B_lp^T,  dB_lp += alpha A_lp^T D,   dU = dS * f,  dw += sum dU * n,
//   dN = dU * w,   G += (dN - n mean(dN * n)) / rms.
#pragma once

#include "gradient_sums.h"
#include "nsp_forward.h"

namespace stlora::cpu::STLORA_ISA {

template <typename S>
struct NspBackwardScratch {
  using T = Compute<S>;
  std::vector<Matrix<T>> weight, dweight;  // L x [D, D]; dweight of this thread
  Matrix<T> norm_weight, dnorm, dbias;     // [L, D]; sums of this thread
  Matrix<T> merged, d;                     // [D, D]
  Matrix<T> a, b, b_t;                     // [D, r] alpha A_p, [r, D], [D, r] alpha B_p^T
  std::vector<Matrix<T>> factors;          // dA [D, r], dB [r, D] of layer 0, then of layer 1, ...: this adapter's
  Matrix<T> g;                             // [chunk, D]
  Matrix<T> h, n, f, s, ds;                // [R, D]
  Matrix<T> inverse, dnorm_tile;           // [1, R] 1 / rms, [1, D]
  std::vector<Matrix<T>> slots;            // see FactorSums

  NspBackwardScratch(Cutter& cut, const NspProblem& p, int64_t chunk, const FactorSums<S>& sums)
      : norm_weight(cut.matrix<T>(p.depth, p.features)),
        dnorm(cut.matrix<T>(p.depth, p.features)),
        dbias(cut.matrix<T>(p.depth, p.features)),
        merged(cut.matrix<T>(p.features, p.features)),
        d(cut.matrix<T>(p.features, p.features)),
        a(cut.matrix<T>(p.features, max_rank(p))),
        b(cut.matrix<T>(max_rank(p), p.features)),
        b_t(cut.matrix<T>(p.features, max_rank(p))),
        g(cut.matrix<T>(chunk, p.features)),
        h(cut.matrix<T>(kRowBlock, p.features)),
        n(cut.matrix<T>(kRowBlock, p.features)),
        f(cut.matrix<T>(kRowBlock, p.features)),
        s(cut.matrix<T>(kRowBlock, p.features)),
        ds(cut.matrix<T>(kRowBlock, p.features)),
        inverse(cut.matrix<T>(1, kRowBlock)),
        dnorm_tile(cut.matrix<T>(1, p.features)),
        slots(sums.cut(cut)) {
    for (int64_t l = 0; l < p.depth; ++l) {
      weight.push_back(cut.matrix<T>(p.features, p.features));
      dweight.push_back(cut.matrix<T>(p.features, p.features));
      factors.push_back(cut.matrix<T>(p.features, p.layers[l].rank));
      factors.push_back(cut.matrix<T>(p.layers[l].rank, p.features));
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
        factor_sums_(schedule, factor_outputs(p, out)) {
    Cutter count(nullptr);
    Scratch needed(count, p, schedule.row_block(), factor_sums_);
    Cutter cut(scratch_slab(count.used() * size_t(schedule.threads())));
    for (int t = 0; t < schedule.threads(); ++t) scratch_.emplace_back(cut, p, schedule.row_block(), factor_sums_);
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
  int64_t lowest_wanted() const {
    if (dh_) return 0;
    for (int64_t l = 0; l < p_.depth; ++l)
      if (out_[l].norm_weight || out_[l].weight || out_[l].bias || out_[l].A || out_[l].B) return l;
    return p_.depth;
  }

  void work(int thread) {
    const Scratch& s = scratch_[size_t(thread)];
    const int64_t D = p_.features, lowest = lowest_wanted();
    fill_zero(s.dnorm, p_.depth);
    fill_zero(s.dbias, p_.depth);
    for (int64_t l = 0; l < p_.depth; ++l) {
      load_matrix(static_cast<const S*>(p_.layers[l].weight), D, D, T(1), s.weight[size_t(l)]);
      load_row(static_cast<const S*>(p_.layers[l].norm_weight), 1, D, s.norm_weight.row(l));
      fill_zero(s.dweight[size_t(l)], D);
    }
    schedule_.for_each_segment(thread, [&](const Segment& segment) {
      for (int64_t u = segment.first; u < segment.last; ++u) {
        const Schedule::Unit unit = schedule_.unit(u);
        const int64_t rows = unit.end - unit.begin;
        for (int64_t i = 0; i < rows; ++i)
          load_row(element<S>(grad_, unit.begin + i, unit.slot), grad_.feature, D, s.g.row(i));
        for (int64_t l = p_.depth - 1; l >= lowest; --l) layer(s, segment.adapter, unit, l, u == segment.first);
        if (!dh_) continue;
        for (int64_t i = 0; i < rows; ++i)
          store_row(s.g.row(i), D, dh_ + ((unit.begin + i) * p_.nodes + unit.slot) * D);
      }
      factor_sums_.deliver(thread, segment, s.slots, s.factors.data());
    });
  }

  // G of the chunk from the output of layer l to its input.
  void layer(const Scratch& s, int64_t adapter, const Schedule::Unit& unit, int64_t l, bool first) const {
    const int64_t D = p_.features, rows = unit.end - unit.begin;
    const NspLayer& layer = p_.layers[l];
    const NspLayerGradients& out = out_[l];
    const bool factors = out.A || out.B, inputs = dh_ || out.norm_weight || l > lowest_wanted();
    const S* B = static_cast<const S*>(layer.B) + adapter * layer.B_stride;
    load_matrix(static_cast<const S*>(layer.A) + adapter * layer.A_stride, D, layer.rank, T(p_.alpha), s.a);
    load_matrix(B, layer.rank, D, T(1), s.b);
    if (inputs) gemm(D, D, layer.rank, s.a.left(), s.b, s.weight[size_t(l)], s.merged);
    for (int64_t begin = 0; begin < rows; begin += kRowBlock) {
      const int64_t count = begin + kRowBlock < rows ? kRowBlock : rows - begin;
      const Matrix<T> g{s.g.row(begin), s.g.ld};
      load_sigma(s, unit, l, begin, count);
      if (factors || out.weight) gemm(D, D, count, g.transposed(), s.s, begin == 0 ? kNothing : s.d, s.d);
      if (out.bias) add_columns(g, count, D, s.dbias.row(l));
      if (inputs) {
        gemm(count, D, D, g.left(), s.merged, kNothing, s.ds);
        through_sigma(s, l, count, g);
      }
    }
    if (out.weight) add(s.d, D, s.dweight[size_t(l)]);
    if (factors) {
      const Matrix<T> da = s.factors[size_t(2 * l)], db = s.factors[size_t(2 * l + 1)];
      load_transposed(B, layer.rank, D, T(p_.alpha), s.b_t);
      gemm(D, layer.rank, D, s.d.left(), s.b_t, first ? kNothing : da, da);
      gemm(layer.rank, D, D, s.a.transposed(), s.d, first ? kNothing : db, db);
    }
  }

  // The layer's input of a tile, and from it s, n, f and 1 / rms.
  void load_sigma(const Scratch& s, const Schedule::Unit& unit, int64_t l, int64_t begin, int64_t count) const {
    const int64_t D = p_.features;
    const Sigma<T> sigma(p_, l, s.norm_weight.row(l));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = unit.begin + begin + i;
      T* h = s.h.row(i);
      if (l == 0)
        load_row(element<S>(p_.h, row, unit.slot), p_.h.feature, D, h);
      else
        load_row(saved_rows<T>(p_, saved_, unit.slot, l, row), 1, D, h);
      s.inverse.data[i] = sigma.row(h, element_index(p_, row, unit.slot), s.n.row(i), s.f.row(i), s.s.row(i));
    }
  }

  // dS of a tile to dU, dw and the gradient of the layer's input, which the residual adds to G.
  void through_sigma(const Scratch& s, int64_t l, int64_t count, Matrix<T> g) const {
    const int64_t D = p_.features;
    const T* w = s.norm_weight.row(l);
    T *dw_tile = s.dnorm_tile.data, *dw = s.dnorm.row(l);
    std::memset(dw_tile, 0, sizeof(T) * size_t(padded<T>(D)));
    for (int64_t i = 0; i < count; ++i) {
      T *ds = s.ds.row(i), *row = g.row(i);
      const T *n = s.n.row(i), *f = s.f.row(i);
      for (int64_t j = 0; j < D; j += lanes<T>) {
        const Vector<T> du = load(ds + j) * load(f + j);
        store(dw_tile + j, load(dw_tile + j) + du * load(n + j));
        store(ds + j, du * load(w + j));  // dN
      }
      const T mean = dot(ds, n, D) / T(D), inverse = s.inverse.data[i];
      for (int64_t j = 0; j < D; j += lanes<T>)
        store(row + j, load(row + j) + inverse * (load(ds + j) - load(n + j) * mean));
    }
    for (int64_t j = 0; j < D; ++j) dw[j] += dw_tile[j];
  }

  // sum += the columns' sums over a tile, added up apart first: long sums of many small numbers would lose digits.
  static void add_columns(Matrix<T> m, int64_t rows, int64_t columns, T* sum) {
    for (int64_t j = 0; j < columns; j += lanes<T>) {
      Vector<T> tile{};
      for (int64_t i = 0; i < rows; ++i) tile += load(m.row(i) + j);
      store(sum + j, load(sum + j) + tile);
    }
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
  FactorSums<S> factor_sums_;
  std::vector<Scratch> scratch_;  // by thread
};

template <typename S>
void nsp_backward(const NspProblem& p, const Schedule& schedule, const Strided& grad, const void* saved, void* dh,
                  const NspLayerGradients* layers) {
  NspBackward<S>(p, schedule, grad, saved, dh, layers).run();
}

}  // namespace stlora::cpu::STLORA_ISA
