// The NALL on a GPU: what is covered, and which kernels do it. Host code only.
#include "kernels.h"
#include "shares.h"

namespace stlora::cuda {

const char* why_not_nall(const NallProblem& p, const Device& device) {
  if (p.dtype == DType::f64) return "float64 has no CUDA kernel";
  if (p.rank > kMostRank) return "ranks beyond 128 have no CUDA kernel";
  if (std::max(p.in, p.out) > kMostFeatures) return "the tiles of so many features do not fit shared memory";
  return with_kernels(p.dtype, false, [&](auto kernels) {
    return kernels.nall_fits(p, device) ? nullptr : "the tiles of so many features do not fit shared memory";
  });
}

const char* nall_forward(const NallProblem& p, void* y, const Launch& launch) {
  if (const char* reason = why_not_nall(p, launch.device)) return reason;
  return with_kernels(p.dtype, launch.tf32, [&](auto kernels) { return kernels.nall_forward(p, y, launch); });
}

WorkspaceSize nall_backward_workspace(const NallProblem& p, const NallGradients& gradients, const Device& device) {
  const Shares s = shares(p, gradients, device);
  return {s.floats, s.counters};
}

const char* nall_backward(const NallProblem& p, const Strided& grad, const void* y, const NallGradients& gradients,
                          const Nodes& nodes, const Workspace& workspace, const Launch& launch) {
  if (const char* reason = why_not_nall(p, launch.device)) return reason;
  return with_kernels(p.dtype, launch.tf32, [&](auto kernels) {
    return kernels.nall_backward(p, grad, y, gradients, nodes, workspace, launch);
  });
}

}  // namespace stlora::cuda
