// The dropout contract (Philox-4x32-10): element e survives iff word e % 4 of
// philox(key = seed, counter = (e / 4 low, e / 4 high, stream, layer)) >= p * 2^32.
#pragma once

#include <cmath>

#include "vector.h"

namespace stlora::cpu::STLORA_ISA {

template <typename T>
class Dropout {
 public:
  Dropout(double p, uint64_t seed, uint32_t stream, uint32_t layer)
      : key0_(uint32_t(seed)),
        key1_(uint32_t(seed >> 32)),
        stream_(stream),
        layer_(layer),
        threshold_(uint64_t(std::ceil(p * 4294967296.0))),
        scale_(p < 1 ? T(1 / (1 - p)) : T(0)) {}

  bool active() const { return threshold_ > 0; }

  // factors[i] = 1 / (1 - p) where element first + i survives, else 0.
  void factors(uint64_t first, int64_t count, T* factors) const {
    uint32_t words[kBlocks][4];
    int64_t i = 0;
    uint64_t block = first / 4;
    int64_t skip = int64_t(first % 4);
    while (i < count) {
      draw(block, words);
      block += kBlocks;
      const uint32_t* word = &words[0][0] + skip;
      const int64_t ready = 4 * kBlocks - skip, n = count - i < ready ? count - i : ready;
      for (int64_t j = 0; j < n; ++j) factors[i + j] = uint64_t(word[j]) >= threshold_ ? scale_ : T(0);
      i += n;
      skip = 0;
    }
  }

 private:
  static constexpr int kBlocks = 16;  // counters advanced together, so that the compiler can vectorise the rounds

  void draw(uint64_t block, uint32_t (&words)[kBlocks][4]) const {
    uint32_t c0[kBlocks], c1[kBlocks], c2[kBlocks], c3[kBlocks];
    for (int l = 0; l < kBlocks; ++l) {
      c0[l] = uint32_t(block + l);
      c1[l] = uint32_t((block + l) >> 32);
      c2[l] = stream_;
      c3[l] = layer_;
    }
    uint32_t key0 = key0_, key1 = key1_;
    for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
      for (int l = 0; l < kBlocks; ++l) {
        const uint64_t product0 = uint64_t(c0[l]) * 0xD2511F53u, product1 = uint64_t(c2[l]) * 0xCD9E8D57u;
        c0[l] = uint32_t(product1 >> 32) ^ c1[l] ^ key0;
        c2[l] = uint32_t(product0 >> 32) ^ c3[l] ^ key1;
        c1[l] = uint32_t(product1);
        c3[l] = uint32_t(product0);
      }
    }
    for (int l = 0; l < kBlocks; ++l) {
      words[l][0] = c0[l];
      words[l][1] = c1[l];
      words[l][2] = c2[l];
      words[l][3] = c3[l];
    }
  }

  uint32_t key0_, key1_, stream_, layer_;
  uint64_t threshold_;
  T scale_;
};

}  // namespace stlora::cpu::STLORA_ISA
