// The NALL's kernels of one kind of number, STLORA_NUMBERS.
#include "kernels.h"
#include "nall_backward.h"
#include "nall_forward.h"

namespace stlora::cuda {

using K = Kernels<Numbers::STLORA_NUMBERS>;
using T = Storage<Numbers::STLORA_NUMBERS>;

template <>
bool K::nall_fits(const NallProblem& p, const Device& device) {
  return forward_layout<T>(p, device).bytes && backward_layout<T>(p, device).bytes <= device.shared_memory;
}

template <>
const char* K::nall_forward(const NallProblem& p, void* y, const Launch& launch) {
  return launch_nall_forward<T>(p, y, launch);
}

template <>
const char* K::nall_backward(const NallProblem& p, const Strided& grad, const void* y, const NallGradients& gradients,
                             const Nodes& nodes, const Workspace& workspace, const Launch& launch) {
  return launch_nall_backward<T>(p, grad, y, gradients, nodes, workspace, launch);
}

}  // namespace stlora::cuda
