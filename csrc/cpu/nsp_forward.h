// Forward of the NSP stack on one thread's run of (node, chunk of rows) units.
//
// A thread takes a chunk of a node's rows through all layers before it touches another: the chunk stays in L2, sigma of
// a tile of it in L1/L2. Per layer the chunk needs one matrix, W_lp = W_l + alpha A_lp B_lp, built once per chunk; the
// residual is the addend of the product, so that it costs nothing. h is read once, y written once.
#pragma once

#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "scratch.h"
#include "tile.h"

namespace stlora::cpu::STLORA_ISA {

template <typename T>
STLORA_INLINE T dot(const T* a, const T* b, int64_t count) {  // both zero beyond count, up to a whole vector
  Vector<T> sum{};
  for (int64_t j = 0; j < count; j += lanes<T>) sum += load(a + j) * load(b + j);
  T total = 0;
  for (int l = 0; l < lanes<T>; ++l) total += sum[l];
  return total;
}

inline constexpr uint32_t kSigmaStream = 1;

// Rows of a tile through sigma. n = h / rms(h) and f = the factor of u = n * w that leaky_relu and dropout make, so
// that s = u * f; the backward pass needs n, f and 1/rms too.
template <typename T>
class Sigma {
 public:
  Sigma(const NspProblem& p, int64_t layer, const T* norm_weight)
      : p_(p), weight_(norm_weight), dropout_(p.dropout_p, p.seed, kSigmaStream, uint32_t(layer)) {}

  // One row h [D] of element index `first`; returns 1 / rms. n may be s. Rows are padded, with zeros in h.
  T row(const T* h, uint64_t first, T* n, T* f, T* s) const {
    const int64_t D = p_.features;
    const T inverse = T(1) / std::sqrt(dot(h, h, D) / T(D) + T(p_.eps));
    if (dropout_.active()) {
      dropout_.factors(first, D, f);
      for (int64_t j = D; j < padded<T>(D); ++j) f[j] = 0;
    }
    const Vector<T> one = Vector<T>{} + T(1), slope = Vector<T>{} + T(p_.negative_slope);
    for (int64_t j = 0; j < D; j += lanes<T>) {
      const Vector<T> normal = load(h + j) * inverse, u = normal * load(weight_ + j);
      Vector<T> factor = u > 0 ? one : slope;
      if (dropout_.active()) factor *= load(f + j);
      store(f + j, factor);
      store(n + j, normal);
      store(s + j, u * factor);
    }
    return inverse;
  }

 private:
  const NspProblem& p_;
  const T* weight_;
  Dropout<T> dropout_;
};

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
struct NspForwardScratch {
  std::vector<Matrix<T>> weight_t;  // L x [D, D]
  Matrix<T> bias, norm_weight;      // [L, D]
  Matrix<T> merged_t;               // [D, D]
  Matrix<T> a_t, b;                 // [r, D] alpha A_p^T, [r, D]
  Matrix<T> h, s, f;                // [chunk, D], [R, D], [1, D]

  NspForwardScratch(Cutter& cut, const NspProblem& p, int64_t chunk)
      : bias(cut.matrix<T>(p.depth, p.features)),
        norm_weight(cut.matrix<T>(p.depth, p.features)),
        merged_t(cut.matrix<T>(p.features, p.features)),
        a_t(cut.matrix<T>(max_rank(p), p.features)),
        b(cut.matrix<T>(max_rank(p), p.features)),
        h(cut.matrix<T>(chunk, p.features)),
        s(cut.matrix<T>(kRowBlock, p.features)),
        f(cut.matrix<T>(1, p.features)) {
    for (int64_t l = 0; l < p.depth; ++l) weight_t.push_back(cut.matrix<T>(p.features, p.features));
  }
};

template <typename S>
void nsp_forward(const NspProblem& p, const Schedule& schedule, void* y, void* saved) {
  using T = Compute<S>;
  const int64_t D = p.features;
  Cutter count(nullptr);
  NspForwardScratch<T> needed(count, p, schedule.row_block());
  Cutter cut(scratch_slab(count.used() * size_t(schedule.threads())));
  std::vector<NspForwardScratch<T>> scratch;  // by thread; made here, where running out of memory can still be thrown
  for (int t = 0; t < schedule.threads(); ++t) scratch.emplace_back(cut, p, schedule.row_block());

  parallel(schedule.threads(), [&](int thread) {
    const NspForwardScratch<T>& s = scratch[size_t(thread)];
    for (int64_t l = 0; l < p.depth; ++l) {
      const NspLayer& layer = p.layers[l];
      load_transposed(static_cast<const S*>(layer.weight), D, D, T(1), s.weight_t[size_t(l)]);
      load_row(static_cast<const S*>(layer.norm_weight), 1, D, s.norm_weight.row(l));
      if (layer.bias) load_row(static_cast<const S*>(layer.bias), 1, D, s.bias.row(l));
    }

    schedule.for_each_segment(thread, [&](const Segment& segment) {
      for (int64_t unit_number = segment.first; unit_number < segment.last; ++unit_number) {
        const Schedule::Unit unit = schedule.unit(unit_number);
        const int64_t rows = unit.end - unit.begin;
        for (int64_t i = 0; i < rows; ++i)
          load_row(element<S>(p.h, unit.begin + i, unit.slot), p.h.feature, D, s.h.row(i));
        for (int64_t l = 0; l < p.depth; ++l) {
          const NspLayer& layer = p.layers[l];
          if (l > 0 && saved)
            for (int64_t i = 0; i < rows; ++i)
              store_row(s.h.row(i), D, saved_rows<T>(p, saved, unit.slot, l, unit.begin + i));
          load_transposed(static_cast<const S*>(layer.A) + segment.adapter * layer.A_stride, D, layer.rank, T(p.alpha),
                          s.a_t);
          load_matrix(static_cast<const S*>(layer.B) + segment.adapter * layer.B_stride, layer.rank, D, T(1), s.b);
          gemm(D, D, layer.rank, s.b.transposed(), s.a_t, s.weight_t[size_t(l)], s.merged_t);
          const Sigma<T> sigma(p, l, s.norm_weight.row(l));
          for (int64_t begin = 0; begin < rows; begin += kRowBlock) {
            const int64_t end = begin + kRowBlock < rows ? begin + kRowBlock : rows;
            for (int64_t i = begin; i < end; ++i) {
              T* h = s.h.row(i);
              sigma.row(h, element_index(p, unit.begin + i, unit.slot), s.s.row(i - begin), s.f.data,
                        s.s.row(i - begin));
              for (int64_t j = 0; j < D && layer.bias; ++j) h[j] += s.bias.row(l)[j];
            }
            const Matrix<T> tile{s.h.row(begin), s.h.ld};
            gemm(end - begin, D, D, s.s.left(), s.merged_t, tile, tile);
          }
        }
        for (int64_t i = 0; i < rows; ++i)
          store_row(s.h.row(i), D, static_cast<S*>(y) + ((unit.begin + i) * p.nodes + unit.slot) * D);
      }
    });
  });
}

}  // namespace stlora::cpu::STLORA_ISA
