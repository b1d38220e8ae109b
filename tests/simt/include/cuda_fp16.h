// CUDA's half for the emulator of simt.h: storage and conversions.
#pragma once

struct __half {
  _Float16 value;
  operator float() const { return static_cast<float>(value); }  // NOLINT: as CUDA's
};

inline __half __float2half(float x) { return {static_cast<_Float16>(x)}; }
