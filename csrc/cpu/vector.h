// Vectors of the instruction set this file is compiled for, by the compiler's vector extension: one source for
// AVX-512, AVX2 and portable code. STLORA_ISA names the set and the namespace, so that no two sets share a symbol.
#pragma once

#include <cstdint>
#include <cstring>

#ifndef STLORA_ISA
#error "compile with -DSTLORA_ISA=<name> -DSTLORA_VECTOR_BYTES=<bytes>"
#endif

#define STLORA_INLINE inline __attribute__((always_inline))

namespace stlora::cpu::STLORA_ISA {

template <typename T>
inline constexpr int lanes = STLORA_VECTOR_BYTES / sizeof(T);

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(STLORA_VECTOR_BYTES), may_alias));
  typedef T unaligned __attribute__((vector_size(STLORA_VECTOR_BYTES), may_alias, aligned(sizeof(T))));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

// Unaligned moves cost nothing where the address is aligned, and let a product end in the caller's own array.
template <typename T>
STLORA_INLINE Vector<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p);
}

template <typename T>
STLORA_INLINE void store(T* p, Vector<T> v) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = v;
}

// Columns of a scratch matrix: whole vectors, and never a multiple of 512 bytes, which would map the rows of a
// matrix onto a few sets of the L1 cache.
template <typename T>
constexpr int64_t padded(int64_t columns) {
  return (columns + lanes<T> - 1) / lanes<T> * lanes<T>;
}
template <typename T>
constexpr int64_t leading_dimension(int64_t columns) {
  const int64_t ld = padded<T>(columns);
  return ld * int64_t(sizeof(T)) % 512 == 0 ? ld + lanes<T> : ld;
}

// Storage types and the type they are computed in.
struct bf16 {
  uint16_t bits;
};
using f16 = _Float16;

template <typename S>
struct ComputeOf {
  using type = S;
};
template <>
struct ComputeOf<bf16> {
  using type = float;
};
template <>
struct ComputeOf<f16> {
  using type = float;
};
template <typename S>
using Compute = typename ComputeOf<S>::type;

template <typename S>
STLORA_INLINE Compute<S> widen(S value) {
  return Compute<S>(value);
}
STLORA_INLINE float widen(bf16 value) { return __builtin_bit_cast(float, uint32_t(value.bits) << 16); }

template <typename S>
STLORA_INLINE S narrow(Compute<S> value) {
  return S(value);
}
template <>
STLORA_INLINE bf16 narrow<bf16>(float value) {  // to nearest, ties to even; NaN stays NaN
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  return {uint16_t(value != value ? 0x7FC0 : rounded)};
}

}  // namespace stlora::cpu::STLORA_ISA
