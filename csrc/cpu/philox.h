// The dropout contract (Philox-4x32-10): element e survives iff word e % 4 of
// philox(key = seed, counter = (e / 4 low, e / 4 high, stream, layer)) >= p * 2^32.
//
// Each 64-bit lane carries one 32-bit word of one counter (what stands above it is ignored), because the instruction
// sets multiply 32 x 32 -> 64 bits in that arrangement. Several vectors advance together to hide the latency.
#pragma once

#include <algorithm>
#include <cmath>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "vector.h"

namespace stlora::cpu::STLORA_ISA {

using Words = Vector<uint64_t>;

STLORA_INLINE Words multiply_low_halves(Words a, Words b) {
#if STLORA_VECTOR_BYTES == 64 && defined(__AVX512F__)
  // Masked with all ones: GCC 12 warns of the undefined register that the plain intrinsic starts from.
  return (Words)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif STLORA_VECTOR_BYTES == 32 && defined(__AVX2__)
  return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif STLORA_VECTOR_BYTES == 16 && defined(__SSE2__)
  return (Words)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

template <typename T>
class Dropout {
 public:
  Dropout(double p, uint64_t seed, uint32_t stream, uint32_t layer)
      : stream_(stream),
        layer_(layer),
        active_(p > 0),
        // p = 1 keeps nothing, and its scale is zero: the threshold may as well fit 32 bits.
        threshold_(uint32_t(std::min(std::ceil(p * 4294967296.0), 4294967295.0))),
        scale_(p < 1 ? T(1 / (1 - p)) : T(0)) {
    uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
    for (int round = 0; round < kRounds; ++round, key[0] += 0x9E3779B9u, key[1] += 0xBB67AE85u)
      for (int i = 0; i < 2; ++i) keys_[round][i] = Words{} + key[i];
  }

  bool active() const { return active_; }

  // factors[i] = 1 / (1 - p) where element first + i survives, else 0.
  void factors(uint64_t first, int64_t count, T* factors) const {
    alignas(STLORA_VECTOR_BYTES) uint32_t words[kMostVectors * kElements];
    uint64_t counter = first / 4;
    int64_t skip = int64_t(first % 4);
    while (count > 0) {
      // Three or four vectors of counters hide each other's latency.
      const int64_t needed = (skip + count + kElements - 1) / kElements;
      const int64_t vectors = needed % 3 == 0 ? 3 : needed < kMostVectors ? needed : kMostVectors;
      vectors == 4   ? draw<4>(counter, words)
      : vectors == 3 ? draw<3>(counter, words)
      : vectors == 2 ? draw<2>(counter, words)
                     : draw<1>(counter, words);
      const int64_t drawn = vectors * kElements - skip, n = count < drawn ? count : drawn;
      for (int64_t j = 0; j < n; ++j) factors[j] = words[skip + j] >= threshold_ ? scale_ : T(0);
      counter += uint64_t(vectors * kLanes);
      factors += n;
      count -= n;
      skip = 0;
    }
  }

 private:
  static constexpr int kRounds = 10, kMostVectors = 4;
  static constexpr int kLanes = STLORA_VECTOR_BYTES / 8, kElements = 4 * kLanes;  // counters, elements of a vector

  // The four words of consecutive counters, in the order of the elements.
  template <int VECTORS>
  __attribute__((noinline)) void draw(uint64_t counter, uint32_t* words) const {
    Words c0[VECTORS], c1[VECTORS], c2[VECTORS], c3[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      Words lane;
      for (int l = 0; l < kLanes; ++l) lane[l] = uint64_t(v * kLanes + l);
      c0[v] = lane + counter;
      c1[v] = c0[v] >> 32;
      c2[v] = Words{} + stream_;
      c3[v] = Words{} + layer_;
    }
    const Words multiplier0 = Words{} + 0xD2511F53u, multiplier1 = Words{} + 0xCD9E8D57u;
#pragma GCC unroll 10
    for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        const Words product0 = multiply_low_halves(c0[v], multiplier0);
        const Words product1 = multiply_low_halves(c2[v], multiplier1);
        c0[v] = (product1 >> 32) ^ c1[v] ^ keys_[round][0];
        c1[v] = product1;
        c2[v] = (product0 >> 32) ^ c3[v] ^ keys_[round][1];
        c3[v] = product0;
      }
    using Index = Vector<int64_t>;
    Index first, second;  // lanes of (low, high) pairs in order: the lower half of the counters, then the upper
    for (int l = 0; l < kLanes; ++l) {
      first[l] = l / 2 + l % 2 * kLanes;
      second[l] = first[l] + kLanes / 2;
    }
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v, words += kElements) {
      const Words low = (c0[v] & 0xFFFFFFFFu) | (c1[v] << 32), high = (c2[v] & 0xFFFFFFFFu) | (c3[v] << 32);
      store(reinterpret_cast<uint64_t*>(words), __builtin_shuffle(low, high, first));
      store(reinterpret_cast<uint64_t*>(words) + kLanes, __builtin_shuffle(low, high, second));
    }
  }

  uint32_t stream_, layer_;
  bool active_;
  uint32_t threshold_;
  T scale_;
  Words keys_[kRounds][2];
};

// to = from * factors, and 0 where the factor is 0, whatever stood there: dropping an infinity must not make a NaN.
template <typename T>
STLORA_INLINE void drop_row(const T* from, const T* factors, int64_t count, T* to) {
  for (int64_t j = 0; j < count; ++j) to[j] = factors[j] == 0 ? T(0) : from[j] * factors[j];
}

}  // namespace stlora::cpu::STLORA_ISA
