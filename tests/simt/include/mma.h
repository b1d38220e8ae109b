// CUDA's matrix fragments for the emulator of simt.h: 16 x 16 x 16, eight elements of a tile per lane, in row order.
#pragma once

#include "cuda_runtime.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == 16, "the emulator knows 16 x 16 x 16");
  static constexpr int num_elements = 8;
  T x[num_elements];
};

template <class F, class T>
void fill_fragment(F& fragment, const T& value) {
  for (auto& x : fragment.x) x = value;
}

namespace emulated {

inline void check_tile(const void* p, unsigned leading, std::size_t element) {
  if (reinterpret_cast<std::uintptr_t>(p) % 32) throw simt::Error("misaligned: a fragment's tile, expected 32 bytes");
  if (leading * element % 16) throw simt::Error("misaligned: a fragment's rows, expected multiples of 16 bytes");
}

}  // namespace emulated

template <class Use, class T, class Layout, class U>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& f, simt::Checked<U> p, unsigned leading) {
  emulated::check_tile(p.raw(), leading, sizeof(T));
  for (int i = 0; i < f.num_elements; ++i) {
    const unsigned e = simt::lane() * 8 + i, row = e / 16, column = e % 16;
    f.x[i] = std::is_same_v<Layout, col_major> ? p[column * leading + row] : p[row * leading + column];
  }
  simt::warp_barrier("load_matrix_sync", static_cast<int>(leading));
}

template <class T, class U>
void load_matrix_sync(fragment<accumulator, 16, 16, 16, T>& f, simt::Checked<U> p, unsigned leading, layout_t layout) {
  emulated::check_tile(p.raw(), leading, sizeof(T));
  for (int i = 0; i < f.num_elements; ++i) {
    const unsigned e = simt::lane() * 8 + i, row = e / 16, column = e % 16;
    f.x[i] = layout == mem_col_major ? p[column * leading + row] : p[row * leading + column];
  }
  simt::warp_barrier("load_matrix_sync", static_cast<int>(leading));
}

template <class T>
void store_matrix_sync(simt::Checked<T> p, const fragment<accumulator, 16, 16, 16, T>& f, unsigned leading,
                       layout_t layout) {
  emulated::check_tile(p.raw(), leading, sizeof(T));
  for (int i = 0; i < f.num_elements; ++i) {
    const unsigned e = simt::lane() * 8 + i, row = e / 16, column = e % 16;
    p[layout == mem_col_major ? column * leading + row : row * leading + column] = f.x[i];
  }
  simt::warp_barrier("store_matrix_sync", static_cast<int>(leading));
}

// d = a b + c, of which every lane computes its eight elements from what all lanes hold of a and b.
template <class T, class LayoutA, class LayoutB>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& d, const fragment<matrix_a, 16, 16, 16, T, LayoutA>& a,
              const fragment<matrix_b, 16, 16, 16, T, LayoutB>& b, const fragment<accumulator, 16, 16, 16, float>& c) {
  struct Operands {
    const T *a, *b;
  } mine{a.x, b.x};
  const void* const* all = simt::warp_exchange(&mine, "mma_sync", 0);
  float result[8];
  for (int i = 0; i < 8; ++i) {
    const unsigned e = simt::lane() * 8 + i, row = e / 16, column = e % 16;
    result[i] = c.x[i];
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned of_a = row * 16 + k, of_b = k * 16 + column;
      const auto at = [&](unsigned element) { return static_cast<const Operands*>(all[element / 8]); };
      result[i] += static_cast<float>(at(of_a)->a[of_a % 8]) * static_cast<float>(at(of_b)->b[of_b % 8]);
    }
  }
  simt::warp_barrier("mma_sync", 1);  // until all have read, which may be what d overwrites
  for (int i = 0; i < 8; ++i) d.x[i] = result[i];
}

}  // namespace nvcuda::wmma
