// The dropout contract (Philox-4x32-10): element e survives iff word e % 4 of
// philox(key = seed, counter = (e / 4 low, e / 4 high, stream, layer)) >= p * 2^32.
#pragma once

#include <cmath>

#include "device.h"

namespace stlora::cuda {

constexpr uint32_t kLowRankStream = 0, kSigmaStream = 1;

struct Dropout {
  uint64_t seed;
  const int64_t* seed_at;  // where the seed is, if it is on the device
  uint64_t threshold;      // p * 2^32, rounded up
  float scale;             // 1 / (1 - p)
  uint32_t stream, layer;
  bool on;

  Dropout(double p, uint64_t seed, const int64_t* seed_at, uint32_t stream)
      : seed(seed),
        seed_at(seed_at),
        threshold(static_cast<uint64_t>(std::ceil(p * 4294967296.0))),
        scale(p < 1 ? static_cast<float>(1 / (1 - p)) : 0.0f),
        stream(stream),
        layer(0),
        on(p > 0) {}

  // The same with the seed at hand.
  __device__ Dropout here() const {
    Dropout dropout = *this;
    if (on && seed_at) dropout.seed = static_cast<uint64_t>(static_cast<int64_t>(*Ptr<const int64_t>(seed_at)));
    return dropout;
  }

  // Bit i: does element 4 block + i survive?
  __device__ unsigned draw(uint64_t block) const {
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
    return unsigned(c0 >= threshold) | unsigned(c1 >= threshold) << 1 | unsigned(c2 >= threshold) << 2 |
           unsigned(c3 >= threshold) << 3;
  }

  // Bit i: does element + i survive, i = 0 to 3?
  __device__ unsigned keeps(uint64_t element) const {
    const unsigned skipped = element % 4, bits = draw(element / 4);
    return skipped == 0 ? bits : (bits | draw(element / 4 + 1) << 4) >> skipped;
  }
};

}  // namespace stlora::cuda
