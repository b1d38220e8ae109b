// CUDA's bfloat16 for the emulator of simt.h: storage and conversions, to nearest, ties to even.
#pragma once

#include <bit>
#include <cstdint>

struct __nv_bfloat16 {
  std::uint16_t bits;
  operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }  // NOLINT: as CUDA's
};

inline __nv_bfloat16 __float2bfloat16(float x) {
  const auto word = std::bit_cast<std::uint32_t>(x);
  if (x != x) return {0x7FC0};
  return {static_cast<std::uint16_t>((word + 0x7FFF + (word >> 16 & 1)) >> 16)};
}
