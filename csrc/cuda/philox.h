// The dropout contract (Philox-4x32-10): element e survives iff word e % 4 of
// philox(key = seed, counter = (e / 4 low, e / 4 high, stream, layer)) >= p * 2^32.
#pragma once

#include "device.h"

namespace stlora::cuda {

struct Dropout {
  uint64_t seed;
  uint64_t threshold;  // p * 2^32, rounded up
  float scale;         // 1 / (1 - p)
  uint32_t stream, layer;

  struct Words {
    uint32_t word[4];
  };

  // For the elements [4 block, 4 block + 4).
  __device__ Words draw(uint64_t block) const {
    uint32_t c0 = uint32_t(block), c1 = uint32_t(block >> 32), c2 = stream, c3 = layer;
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
      const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
      c0 = high1 ^ c1 ^ k0;
      c1 = low1;
      c2 = high0 ^ c3 ^ k1;
      c3 = low0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
  }

  __device__ bool keeps(const Words& words, uint64_t element) const { return words.word[element % 4] >= threshold; }
};

}  // namespace stlora::cuda
