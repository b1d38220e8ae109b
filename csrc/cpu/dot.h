// Pairs of bf16 numbers, multiplied and added up in fp32 two at a time, as AVX512_BF16 does. That takes subnormal
// numbers (below 1.2e-38) for zero; the lowered form below does not.
#pragma once

#include "vector.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#define STLORA_BF16_DOT
#endif

namespace stlora::cpu::STLORA_ISA {

using Pair = uint32_t;  // two bf16, the first in the lower half

// sum + the products of the first halves + those of the second
STLORA_INLINE Vector<float> dot(Vector<Pair> a, Vector<Pair> b, Vector<float> sum) {
#if defined(__AVX512BF16__)
  return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  sum += (Vector<float>)(a & 0xFFFF0000u) * (Vector<float>)(b & 0xFFFF0000u);
  return sum + (Vector<float>)(a << 16) * (Vector<float>)(b << 16);
#endif
}

STLORA_INLINE Pair pair(bf16 first, bf16 second) { return first.bits | Pair(second.bits) << 16; }

// Does the instruction set have it? (A test build says so for the lowered code, see CMakeLists.txt.)
#if defined(STLORA_BF16_DOT)
inline constexpr bool kHasDot = true;
#else
inline constexpr bool kHasDot = false;
#endif

}  // namespace stlora::cpu::STLORA_ISA
