// What lets one source be a CUDA kernel and, compiled by the host compiler against tests/simt, a program for the CPU:
// watched pointers there and plain ones here, one macro for dynamic shared memory, one function that launches.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "stlora/cuda.h"

namespace stlora::cuda {

// Of loops over what a thread keeps in registers, which have no addresses: some architectures' compilers must be told.
#ifdef STLORA_EMULATED
#define STLORA_UNROLL
#else
#define STLORA_UNROLL _Pragma("unroll")
#endif

#ifdef STLORA_EMULATED

template <typename T>
using Ptr = simt::Checked<T>;

#define STLORA_SHARED(name) \
  Ptr<unsigned char> name { static_cast<unsigned char*>(simt::shared_memory()) }

template <typename To, typename From>
Ptr<To> as(Ptr<From> p) {
  return reinterpret_cast<To*>(p.raw());
}

struct Quad {
  float of[4];
};
inline Quad load_quad(Ptr<const float> p) {
  simt::check(p.raw(), sizeof(Quad), false);
  return *reinterpret_cast<const Quad*>(p.raw());
}

simt::Options& emulation();  // how the tests run what is launched

template <typename... Parameters, typename... Arguments>
const char* launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, std::size_t shared, const Launch&,
                   const Arguments&... arguments) {
  simt::launch(emulation(), blocks, threads, shared, [&] { kernel(arguments...); });
  return nullptr;
}

#else

template <typename T>
using Ptr = T*;

#define STLORA_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

template <typename To, typename From>
__device__ __forceinline__ To* as(From* p) {
  return reinterpret_cast<To*>(p);
}

struct alignas(16) Quad {
  float of[4];
};
__device__ __forceinline__ Quad load_quad(const float* p) { return *reinterpret_cast<const Quad*>(p); }

// Null, or what CUDA says of the launch. The most that a block may have, and not what this one has, is set for the
// kernel: another thread may be launching it too.
template <typename... Parameters, typename... Arguments>
const char* launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, std::size_t shared,
                   const Launch& on, const Arguments&... arguments) {
  const int most = int(on.device.shared_memory);
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config{};
    config.gridDim = blocks;
    config.blockDim = threads;
    config.dynamicSmemBytes = shared;
    config.stream = static_cast<cudaStream_t>(on.stream);
    error = cudaLaunchKernelEx(&config, kernel, arguments...);
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

#endif

// A float whose products may lose all but ten bits of its mantissa.
struct tf32 {
  float value;
  __host__ __device__ operator float() const { return value; }  // NOLINT: it is one
};

template <typename T>
__device__ __forceinline__ T rounded(float x) {
  if constexpr (sizeof(T) == 4) {
    return {x};
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half(x);
  } else {
    return __float2bfloat16(x);
  }
}

template <typename T>
__device__ __forceinline__ float wide(T x) {
  return static_cast<float>(x);
}

__host__ __device__ constexpr int round_up(int value, int to) { return (value + to - 1) / to * to; }

}  // namespace stlora::cuda
