// CUDA's matrix fragments for the emulator of simt.h: 16 x 16 x 16, and 16 x 16 x 8 of tf32. A lane holds neighbours of
// a tile in row order, which no kernel may rely on.
#pragma once

#include <bit>

#include "cuda_runtime.h"

namespace nvcuda::wmma {

namespace precision {
struct tf32 {};
}  // namespace precision

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == (std::is_same_v<T, precision::tf32> ? 8 : K) && (K == 16 || K == 8),
                "the emulator knows 16 x 16 x 16, and 16 x 16 x 8 of tf32");
  static constexpr int rows = std::is_same_v<Use, matrix_b> ? K : M;
  static constexpr int columns = std::is_same_v<Use, matrix_a> ? K : N;
  static constexpr int num_elements = rows * columns / int(simt::warp_size);
  std::conditional_t<std::is_same_v<T, precision::tf32>, float, T> x[num_elements];
};

template <class F, class T>
void fill_fragment(F& fragment, const T& value) {
  for (auto& x : fragment.x) x = value;
}

// To nearest, ties away from zero.
inline float __float_to_tf32(float x) {
  return x != x ? x : std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + 0x1000u) & ~0x1fffu);
}

namespace emulated {

inline void check_tile(const void* p, unsigned leading, std::size_t element) {
  if (reinterpret_cast<std::uintptr_t>(p) % 32) throw simt::Error("misaligned: a fragment's tile, expected 32 bytes");
  if (leading * element % 16) throw simt::Error("misaligned: a fragment's rows, expected multiples of 16 bytes");
}

template <class F, class P>
void load(F& f, P p, unsigned leading, bool by_column) {
  check_tile(p.raw(), leading, sizeof(f.x[0]));
  for (int i = 0; i < f.num_elements; ++i) {
    const unsigned e = simt::lane() * f.num_elements + i, row = e / f.columns, column = e % f.columns;
    f.x[i] = by_column ? p[column * leading + row] : p[row * leading + column];
  }
  simt::warp_converges("load_matrix_sync", static_cast<int>(leading));
}

template <class T, class X>
void check_rounded(const X& x) {
  if constexpr (std::is_same_v<T, precision::tf32>)
    if (x == x && __float_to_tf32(x) != x) throw simt::Error("a product of numbers that are not rounded to tf32");
}

}  // namespace emulated

template <class Use, int K, class T, class Layout, class U>
void load_matrix_sync(fragment<Use, 16, 16, K, T, Layout>& f, simt::Checked<U> p, unsigned leading) {
  emulated::load(f, p, leading, std::is_same_v<Layout, col_major>);
}

template <int K, class T, class U>
void load_matrix_sync(fragment<accumulator, 16, 16, K, T>& f, simt::Checked<U> p, unsigned leading, layout_t layout) {
  emulated::load(f, p, leading, layout == mem_col_major);
}

template <int K, class T>
void store_matrix_sync(simt::Checked<T> p, const fragment<accumulator, 16, 16, K, T>& f, unsigned leading,
                       layout_t layout) {
  emulated::check_tile(p.raw(), leading, sizeof(T));
  for (int i = 0; i < f.num_elements; ++i) {
    const unsigned e = simt::lane() * 8 + i, row = e / 16, column = e % 16;
    p[layout == mem_col_major ? column * leading + row : row * leading + column] = f.x[i];
  }
  simt::warp_converges("store_matrix_sync", static_cast<int>(leading));
}

// d = a b + c, of which every lane computes its eight elements from what all lanes hold of a and b.
template <int K, class T, class LayoutA, class LayoutB>
void mma_sync(fragment<accumulator, 16, 16, K, float>& d, const fragment<matrix_a, 16, 16, K, T, LayoutA>& a,
              const fragment<matrix_b, 16, 16, K, T, LayoutB>& b, const fragment<accumulator, 16, 16, K, float>& c) {
  struct Operands {
    decltype(&a.x[0]) left, right;
  } mine{a.x, b.x};
  for (int i = 0; i < a.num_elements; ++i) {
    emulated::check_rounded<T>(a.x[i]);
    emulated::check_rounded<T>(b.x[i]);
  }
  const void* const* all = simt::warp_exchange(&mine, "mma_sync", 0);
  float result[8];
  for (int i = 0; i < 8; ++i) {
    const unsigned e = simt::lane() * 8 + i, row = e / 16, column = e % 16;
    result[i] = c.x[i];
    for (unsigned k = 0; k < K; ++k) {
      const unsigned of_a = row * K + k, of_b = k * 16 + column, each = a.num_elements;
      const auto at = [&](unsigned element) { return static_cast<const Operands*>(all[element / each]); };
      result[i] += static_cast<float>(at(of_a)->left[of_a % each]) * static_cast<float>(at(of_b)->right[of_b % each]);
    }
  }
  simt::warp_converges("mma_sync", 1);  // until all have read, which may be what d overwrites
  for (int i = 0; i < 8; ++i) d.x[i] = result[i];
}

}  // namespace nvcuda::wmma
