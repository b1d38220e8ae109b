// CUDA's names for the emulator of simt.h. Found before the toolkit's header of this name.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define threadIdx (::simt::thread_index())
#define blockIdx (::simt::block_index())
#define blockDim (::simt::block_size())
#define gridDim (::simt::grid_size())
#define warpSize (::simt::warp_size)

#define __syncthreads() ::simt::block_barrier(__FILE__, __LINE__)
#define __syncwarp() ::simt::warp_barrier(__FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, lanes) ::simt::shuffle_xor(mask, value, lanes, __FILE__, __LINE__)
#define __shfl_sync(mask, value, from) ::simt::shuffle(mask, value, from, __FILE__, __LINE__)

using dim3 = simt::Dim3;
using cudaStream_t = void*;

namespace simt {

template <class T>
T shuffle(unsigned mask, T value, unsigned from, const char* file, int line) {
  if (mask != 0xffffffffu) throw Error("a shuffle of part of a warp is not emulated");
  const void* const* all = warp_exchange(&value, file, line);
  T theirs;
  std::memcpy(&theirs, all[from % warp_size], sizeof(T));
  warp_converges(file, line);  // until all have read
  return theirs;
}

template <class T>
T shuffle_xor(unsigned mask, T value, unsigned lanes, const char* file, int line) {
  return shuffle(mask, value, lane() ^ lanes, file, line);
}

}  // namespace simt

// Only one thread runs at a time.
template <class T>
T atomicAdd(simt::Checked<T> p, T value) {
  simt::atomic(p.raw(), sizeof(T));
  const T before = *p.raw();
  *p.raw() = before + value;
  return before;
}

inline void __threadfence() { simt::fence(); }

inline std::uint32_t __umulhi(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::uint32_t>(std::uint64_t{a} * b >> 32);
}

inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
