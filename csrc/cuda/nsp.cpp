// The NSP stack on a GPU: what is covered, and which kernels do it. Host code only.
#include "kernels.h"
#include "shares.h"

namespace stlora::cuda {

const char* why_not_nsp(const NspProblem& p, const Device& device) {
  if (p.dtype == DType::f64) return "float64 has no CUDA kernel";
  if (p.depth > kMostLayers) return "stacks of more than 16 layers have no CUDA kernel";
  for (int64_t l = 0; l < p.depth; ++l)
    if (p.layers[l].rank > kMostRank) return "ranks beyond 128 have no CUDA kernel";
  if (p.features > kMostFeatures) return "the tiles of so many features do not fit shared memory";
  return with_kernels(p.dtype, false, [&](auto kernels) {
    return kernels.nsp_fits(p, device) ? nullptr : "the tiles of so many features do not fit shared memory";
  });
}

const char* nsp_forward(const NspProblem& p, void* y, float* saved, const Launch& launch) {
  if (const char* reason = why_not_nsp(p, launch.device)) return reason;
  return with_kernels(p.dtype, launch.tf32, [&](auto kernels) { return kernels.nsp_forward(p, y, saved, launch); });
}

WorkspaceSize nsp_backward_workspace(const NspProblem& p, const NspLayerGradients* layers, const Device& device) {
  const StackShares s = stack_shares(p, layers, device);
  return {s.floats, s.counters};
}

const char* nsp_backward(const NspProblem& p, const Strided& grad, const float* saved, void* dh,
                         const NspLayerGradients* layers, const Nodes& nodes, void* left, const Workspace& workspace,
                         const Launch& launch) {
  if (const char* reason = why_not_nsp(p, launch.device)) return reason;
  return with_kernels(p.dtype, launch.tf32, [&](auto kernels) {
    return kernels.nsp_backward(p, grad, saved, dh, layers, nodes, left, workspace, launch);
  });
}

}  // namespace stlora::cuda
