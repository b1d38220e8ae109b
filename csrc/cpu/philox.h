// The dropout contract (Philox-4x32-10): element e survives iff word e % 4 of
// philox(key = seed, counter = (e / 4 low, e / 4 high, stream, layer)) >= p * 2^32.
//
// Each 64-bit lane carries one 32-bit word of one counter (what stands above it is ignored), because the instruction
// sets multiply 32 x 32 -> 64 bits in that arrangement. Several vectors advance together to hide the latency.
#pragma once

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
      : seed_(seed),
        stream_(stream),
        layer_(layer),
        threshold_(uint64_t(std::ceil(p * 4294967296.0))),
        scale_(p < 1 ? T(1 / (1 - p)) : T(0)) {}

  bool active() const { return threshold_ > 0; }

  // factors[i] = 1 / (1 - p) where element first + i survives, else 0.
  void factors(uint64_t first, int64_t count, T* factors) const {
    alignas(STLORA_VECTOR_BYTES) uint32_t words[4 * kCounters];
    // p = 1 keeps nothing, and its scale is zero: the threshold may as well fit 32 bits.
    const uint32_t threshold = threshold_ > 0xFFFFFFFFu ? 0xFFFFFFFFu : uint32_t(threshold_);
    int64_t skip = int64_t(first % 4);
    for (uint64_t counter = first / 4; count > 0; counter += kCounters, skip = 0) {
      draw(counter, words);
      const int64_t n = count < 4 * kCounters - skip ? count : 4 * kCounters - skip;
      for (int64_t j = 0; j < n; ++j) factors[j] = words[skip + j] >= threshold ? scale_ : T(0);
      factors += n;
      count -= n;
    }
  }

 private:
  static constexpr int kLanes = STLORA_VECTOR_BYTES / 8, kVectors = 4, kCounters = kLanes * kVectors;

  // The four words of kCounters consecutive counters, in the order of the elements.
  void draw(uint64_t counter, uint32_t* words) const {
    Words c0[kVectors], c1[kVectors], c2[kVectors], c3[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      alignas(STLORA_VECTOR_BYTES) uint64_t counters[kLanes];
      for (int l = 0; l < kLanes; ++l) counters[l] = counter + uint64_t(v * kLanes + l);
      c0[v] = load(counters);
      c1[v] = c0[v] >> 32;
      c2[v] = Words{} + stream_;
      c3[v] = Words{} + layer_;
    }
    const Words multiplier0 = Words{} + 0xD2511F53u, multiplier1 = Words{} + 0xCD9E8D57u;
    Words key0 = Words{} + uint32_t(seed_), key1 = Words{} + uint32_t(seed_ >> 32);
    for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const Words product0 = multiply_low_halves(c0[v], multiplier0);
        const Words product1 = multiply_low_halves(c2[v], multiplier1);
        c0[v] = (product1 >> 32) ^ c1[v] ^ key0;
        c1[v] = product1;
        c2[v] = (product0 >> 32) ^ c3[v] ^ key1;
        c3[v] = product0;
      }
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    for (int v = 0; v < kVectors; ++v) {
      const Words low = (c0[v] & 0xFFFFFFFFu) | (c1[v] << 32), high = (c2[v] & 0xFFFFFFFFu) | (c3[v] << 32);
      for (int l = 0; l < kLanes; ++l, words += 4) {
        const uint64_t pair[2] = {low[l], high[l]};
        std::memcpy(words, pair, sizeof(pair));
      }
    }
  }

  uint64_t seed_;
  uint32_t stream_, layer_;
  uint64_t threshold_;
  T scale_;
};

// to = from * factors, and 0 where the factor is 0, whatever stood there: dropping an infinity must not make a NaN.
template <typename T>
STLORA_INLINE void drop_row(const T* from, const T* factors, int64_t count, T* to) {
  for (int64_t j = 0; j < count; ++j) to[j] = factors[j] == 0 ? T(0) : from[j] * factors[j];
}

}  // namespace stlora::cpu::STLORA_ISA
