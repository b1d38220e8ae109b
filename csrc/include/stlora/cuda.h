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

// Where there is a node_index: node slots sorted by their adapter [N], and where each adapter's begin [P + 1].
struct Nodes {
  const int64_t *order, *first_slot;
};

// Room for sums that blocks share. Counters are zero, and zero again when the launch has run.
struct Workspace {
  float* floats;
  unsigned* counters;
};

struct WorkspaceSize {
  int64_t floats, counters;
};

WorkspaceSize nall_backward_workspace(const NallProblem& problem, const NallGradients& gradients, const Device& device);

// grad is dL/dy; y is the forward's output, read only where there is an activation.
// The results are the same bits from run to run.
const char* nall_backward(const NallProblem& problem, const Strided& grad, const void* y,
                          const NallGradients& gradients, const Nodes& nodes, const Workspace& workspace,
                          const Device& device, void* stream);

}  // namespace stlora::cuda
