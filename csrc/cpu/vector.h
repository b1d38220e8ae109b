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
struct f16 {  // IEEE half; _Float16 is not in every compiler
  uint16_t bits;
};

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

STLORA_INLINE float widen(f16 value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16, rest = uint32_t(value.bits & 0x7FFF) << 13;
  // Scaling by 2^112 moves the exponent to float's bias and makes subnormals normal; inf and NaN have all bits set.
  const float scaled = __builtin_bit_cast(float, rest) * 0x1p112f;
  const uint32_t bits = rest >= 0x0F800000 ? rest | 0x7F800000 : __builtin_bit_cast(uint32_t, scaled);
  return __builtin_bit_cast(float, bits | sign);
}

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

template <>
STLORA_INLINE f16 narrow<f16>(float value) {  // to nearest, ties to even; NaN stays NaN
  const uint32_t all = __builtin_bit_cast(uint32_t, value), sign = all >> 16 & 0x8000, bits = all & 0x7FFFFFFF;
  uint32_t half;
  if (bits >= 0x47800000)  // 65536 and more: infinity; what rounds up to it carries there by itself below
    half = bits > 0x7F800000 ? 0x7E00 : 0x7C00;
  else if (bits < 0x38800000)  // subnormal: the addition rounds at the last bit of a half
    half = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, bits) + 0.5f) - 0x3F000000;
  else
    half = (bits - 0x38000000 + 0xFFF + (bits >> 13 & 1)) >> 13;
  return {uint16_t(half | sign)};
}

}  // namespace stlora::cpu::STLORA_ISA
