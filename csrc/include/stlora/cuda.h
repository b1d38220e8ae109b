// The CUDA kernels: what the CPU's interface (nall.h, nsp.h) computes, on a stream. No CUDA header is needed here.
//
// Functions return null, or a text that says what CUDA refused or the kernels do not cover. Pointers are the device's,
// but for NspProblem::layers and the gradients of layers, which are read before the call returns. Nothing is kept from
// call to call. The results are the same bits from run to run.
#pragma once

#include <cstddef>

#include "stlora/nsp.h"

namespace stlora::cuda {

struct Device {
  int multiprocessors;
  std::size_t shared_memory;  // bytes a block may have
};

// What the number-th GPU has.
const char* ask_device(int number, Device& device);

struct Launch {
  Device device;
  void* stream;            // a cudaStream_t
  bool tf32;               // may fp32 products round their factors to tf32?
  const int64_t* seed_at;  // where the dropout's seed is, if it is on the device; else null
};

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

// Null, or why the kernels do not cover a problem on this device. Of the problem only the type, the sizes and whether
// there is dropout are read: no pointers.
const char* why_not_nall(const NallProblem& problem, const Device& device);
const char* why_not_nsp(const NspProblem& problem, const Device& device);

// y is contiguous [M, N, O].
const char* nall_forward(const NallProblem& problem, void* y, const Launch& launch);

WorkspaceSize nall_backward_workspace(const NallProblem& problem, const NallGradients& gradients, const Device& device);

// grad is dL/dy; y is the forward's output, read only where there is an activation.
const char* nall_backward(const NallProblem& problem, const Strided& grad, const void* y,
                          const NallGradients& gradients, const Nodes& nodes, const Workspace& workspace,
                          const Launch& launch);

// y is contiguous [M, N, D]; `saved` [N, L-1, M, D], fp32, or null, as in nsp.h.
const char* nsp_forward(const NspProblem& problem, void* y, float* saved, const Launch& launch);

WorkspaceSize nsp_backward_workspace(const NspProblem& problem, const NspLayerGradients* layers, const Device& device);

// dh is contiguous [M, N, D] or null. A gradient that one layer wants, every layer wants. `left` is room for
// 2 L M N D numbers of the problem's type, in which layers leave what their parameters' gradients are made of.
const char* nsp_backward(const NspProblem& problem, const Strided& grad, const float* saved, void* dh,
                         const NspLayerGradients* layers, const Nodes& nodes, void* left, const Workspace& workspace,
                         const Launch& launch);

}  // namespace stlora::cuda
