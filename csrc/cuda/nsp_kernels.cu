// The NSP stack's kernels of one kind of number, STLORA_NUMBERS.
#include "kernels.h"
#include "nsp_backward.h"
#include "nsp_forward.h"

namespace stlora::cuda {

using K = Kernels<Numbers::STLORA_NUMBERS>;
using T = Storage<Numbers::STLORA_NUMBERS>;

template <>
bool K::nsp_fits(const NspProblem& p, const Device& device) {
  return stack_forward_layout(Stack<T>(p, nullptr, nullptr), device).bytes &&
         stack_backward_bytes<T>(p, false) <= device.shared_memory;
}

template <>
const char* K::nsp_forward(const NspProblem& p, void* y, float* saved, const Launch& launch) {
  return launch_nsp_forward<T>(p, y, saved, launch);
}

template <>
const char* K::nsp_backward(const NspProblem& p, const Strided& grad, const float* saved, void* dh,
                            const NspLayerGradients* layers, const Nodes& nodes, void* left, const Workspace& workspace,
                            const Launch& launch) {
  return launch_nsp_backward<T>(p, grad, saved, dh, layers, nodes, left, workspace, launch);
}

}  // namespace stlora::cuda
