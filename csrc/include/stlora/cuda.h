// The CUDA kernels: what the CPU's interface (nall.h) computes, on a stream. No CUDA header is needed to call them.
//
// Functions return null, or a text that says what CUDA refused or the kernels do not cover. Pointers are the device's.
#pragma once

#include <cstddef>

#include "stlora/nall.h"

namespace stlora::cuda {

struct Device {
  int multiprocessors;
  std::size_t shared_memory;  // bytes a block may have
};

// Null, or why nall_forward does not cover a problem on this device.
const char* why_not(const NallProblem& problem, const Device& device);

// y is contiguous [M, N, O]. `stream` is a cudaStream_t.
const char* nall_forward(const NallProblem& problem, void* y, const Device& device, void* stream);

}  // namespace stlora::cuda
