// Rows through sigma and back, one tile at a time while it is in L1/L2:
//   s = u * f,   u = n * w,   n = h / rms(h),   f = (u > 0 ? 1 : slope) * (dropout's factor)
// and for a gradient dS of s:
//   dU = dS * f,   dw += sum dU * n,   dN = dU * w,   G += (dN - n mean(dN * n)) / rms.
// n is never stored: it is h times a number per row. Rows are read in whole vectors, zeros (or other rows, with a zero
// weight) behind D.
#pragma once

#include "philox.h"
#include "stlora/nsp.h"
#include "tile.h"

namespace stlora::cpu::STLORA_ISA {

inline constexpr uint32_t kSigmaStream = 1;
inline constexpr int kSigmaRows = 4;  // rows that advance together, so that their sums hide each other's latency

template <typename T>
STLORA_INLINE T horizontal_sum(Vector<T> v) {
  T sum[lanes<T>];
  std::memcpy(sum, &v, sizeof(v));
  for (int step = lanes<T> / 2; step > 0; step /= 2)
    for (int l = 0; l < step; ++l) sum[l] += sum[l + step];
  return sum[0];
}

template <typename T>
class Sigma {
 public:
  // norm_weight [D], with zeros up to a whole vector.
  Sigma(const NspProblem& p, int64_t layer, const T* norm_weight)
      : features_(p.features),
        eps_(T(p.eps)),
        slope_(T(p.negative_slope)),
        weight_(norm_weight),
        dropout_(p.dropout_p, p.seed, kSigmaStream, uint32_t(layer)) {}

  // inverse[i] = 1 / rms(h_i)
  void inverse_rms(Matrix<const T> h, int64_t rows, T* inverse) const {
    int64_t i = 0;
    for (; i + kSigmaRows <= rows; i += kSigmaRows) square_sums<kSigmaRows>(h.row(i), h.ld, inverse + i);
    for (; i < rows; ++i) square_sums<1>(h.row(i), h.ld, inverse + i);
    for (i = 0; i < rows; ++i) inverse[i] = T(1) / std::sqrt(inverse[i] / T(features_) + eps_);
  }

  // One row of element index `first`. f and s are padded rows; f may be s.
  STLORA_INLINE void row(const T* h, T inverse, uint64_t first, T* f, T* s) const {
    // Members as locals, here and below: a vector store may alias them, and each would be read anew.
    const int64_t D = features_;
    const T* const weight = weight_;
    const bool drop = dropout_.active();
    if (drop) dropout_.factors(first, D, f);
    for (int64_t j = D; drop && j < padded<T>(D); ++j) f[j] = 0;
    const Vector<T> one = Vector<T>{} + T(1), slope = Vector<T>{} + slope_;
    for (int64_t j = 0; j < D; j += lanes<T>) {
      const Vector<T> u = load(h + j) * inverse * load(weight + j);
      Vector<T> factor = u > 0 ? one : slope;
      if (drop) factor *= load(f + j);
      store(f + j, factor);
      store(s + j, u * factor);
    }
  }

  // dS of a tile to dw (added up apart first: long sums of small numbers would lose digits) and into G, in place of
  // dS leaving dN. dw_tile is scratch.
  void backward(Matrix<const T> h, const T* inverse, Matrix<T> f, Matrix<T> ds, int64_t rows, T* dw_tile, T* dw,
                Matrix<T> g) const {
    std::memset(dw_tile, 0, sizeof(T) * size_t(padded<T>(features_)));
    int64_t i = 0;
    for (; i + kSigmaRows <= rows; i += kSigmaRows)
      backward_rows<kSigmaRows>(h.row(i), h.ld, inverse + i, f.row(i), f.ld, ds.row(i), ds.ld, dw_tile, g.row(i), g.ld);
    for (; i < rows; ++i)
      backward_rows<1>(h.row(i), h.ld, inverse + i, f.row(i), f.ld, ds.row(i), ds.ld, dw_tile, g.row(i), g.ld);
    for (int64_t j = 0; j < features_; ++j) dw[j] += dw_tile[j];
  }

 private:
  template <int ROWS>
  STLORA_INLINE void square_sums(const T* h, int64_t ld, T* sums) const {
    Vector<T> sum[ROWS] = {};
    for (int64_t j = 0, D = features_; j < D; j += lanes<T>)
      for (int i = 0; i < ROWS; ++i) {
        const Vector<T> value = load(h + i * ld + j);
        sum[i] += value * value;
      }
    for (int i = 0; i < ROWS; ++i) sums[i] = horizontal_sum<T>(sum[i]);
  }

  template <int ROWS>
  STLORA_INLINE void backward_rows(const T* h, int64_t h_ld, const T* inverse, const T* f, int64_t f_ld, T* ds,
                                   int64_t ds_ld, T* dw, T* g, int64_t g_ld) const {
    const int64_t D = features_;
    const T* const weight = weight_;
    T inverses[ROWS], along[ROWS];
    for (int i = 0; i < ROWS; ++i) inverses[i] = inverse[i];
    Vector<T> products[ROWS] = {};
    for (int64_t j = 0; j < D; j += lanes<T>) {
      const Vector<T> w = load(weight + j);
      Vector<T> sum = load(dw + j);
      for (int i = 0; i < ROWS; ++i) {
        const Vector<T> n = load(h + i * h_ld + j) * inverses[i];
        const Vector<T> du = load(ds + i * ds_ld + j) * load(f + i * f_ld + j), dn = du * w;
        sum += du * n;
        products[i] += dn * n;
        store(ds + i * ds_ld + j, dn);
      }
      store(dw + j, sum);
    }
    // G += dN / rms - h mean(dN * n) / rms^2
    for (int i = 0; i < ROWS; ++i) along[i] = horizontal_sum<T>(products[i]) / T(D) * inverses[i] * inverses[i];
    for (int64_t j = 0; j < D; j += lanes<T>)
      for (int i = 0; i < ROWS; ++i) {
        T* const to = g + i * g_ld + j;
        store(to, load(to) + inverses[i] * load(ds + i * ds_ld + j) - along[i] * load(h + i * h_ld + j));
      }
  }

  int64_t features_;
  T eps_, slope_;
  const T* weight_;
  Dropout<T> dropout_;
};

}  // namespace stlora::cpu::STLORA_ISA
