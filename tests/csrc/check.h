// What the C++ tests share: a failure count, random numbers, the instruction sets to test.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "kernels.h"
#include "stlora/isa.h"

namespace stlora::cpu {
STLORA_DECLARE_KERNELS(wide)
}

namespace check {

using Array = std::vector<double>;

inline int failures = 0;

inline void that(bool ok, const std::string& what) {
  if (ok) return;
  ++failures;
  std::printf("FAILED %s\n", what.c_str());
}

inline Array random(std::mt19937_64& engine, int64_t n, double scale = 1.0) {  // exact in float
  std::normal_distribution<double> normal;
  Array a(n);
  for (double& v : a) v = float(scale * normal(engine));
  return a;
}

// Exact-sized heap blocks, so that AddressSanitizer sees a single element too many.
template <typename T>
std::vector<T> converted(const Array& a) {
  return {a.begin(), a.end()};
}

struct Bf16 {  // storage as the kernels see it
  uint16_t bits = 0;
  Bf16() = default;
  explicit Bf16(double value) {  // to nearest, ties to even; NaN stays NaN
    const uint32_t word = std::bit_cast<uint32_t>(float(value));
    bits = value != value ? 0x7FC0 : uint16_t((word + 0x7FFF + (word >> 16 & 1)) >> 16);
  }
  operator double() const { return double(std::bit_cast<float>(uint32_t(bits) << 16)); }
};

struct Isa {
  const char* name;
  stlora::cpu::Kernels kernels;
};

// `wide` is the kernel source with 64-byte vectors (as AVX-512 has) that the compiler lowers to what the baseline
// offers, so that the code for AVX-512 is tested on every machine.
inline std::vector<Isa> isas() {
  using namespace stlora::cpu;
  std::vector<Isa> all = {{"portable", {&portable::nall_kernels, &portable::nsp_kernels}},
                          {"wide", {&wide::nall_kernels, &wide::nsp_kernels}}};
  for (const char* name : {"avx2", "avx512", "avx512_bf16"}) {
    if (isa_supported(name)) {
      select_isa(name);
      all.push_back({name, kernels()});
    } else {
      std::printf("%s: not offered by this machine, skipped\n", name);
    }
  }
  return all;
}

inline int summary() {
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace check
