#include "nall_backward.h"
#include "nall_forward.h"

namespace stlora::cuda {
namespace {

// `f` of a null pointer to the problem's type.
template <typename F>
auto with_type(const NallProblem& p, F&& f) {
  if (p.dtype == DType::f32) return f(static_cast<float*>(nullptr));
  if (p.dtype == DType::f16) return f(static_cast<__half*>(nullptr));
  return f(static_cast<__nv_bfloat16*>(nullptr));
}

}  // namespace

const char* why_not(const NallProblem& p, const Device& device) {
  if (p.dtype == DType::f64) return "float64 has no CUDA kernel";
  if (p.rank > kMostRank) return "a rank beyond 128 has no CUDA kernel";
  return with_type(p, [&]<typename T>(T*) {
    const bool fits = forward_layout<T>(p, device).bytes && BackwardLayout<T>(p).bytes <= device.shared_memory;
    return fits ? nullptr : "the tiles of this many features do not fit shared memory";
  });
}

const char* nall_forward(const NallProblem& p, void* y, const Device& device, void* stream) {
  if (const char* reason = why_not(p, device)) return reason;
  return with_type(p, [&]<typename T>(T*) { return nall_forward_of<T>(p, y, device, stream); });
}

WorkspaceSize nall_backward_workspace(const NallProblem& p, const NallGradients& gradients, const Device& device) {
  const Shares s = shares(p, gradients, device);
  return {s.floats, s.counters};
}

const char* nall_backward(const NallProblem& p, const Strided& grad, const void* y, const NallGradients& gradients,
                          const Nodes& nodes, const Workspace& workspace, const Device& device, void* stream) {
  if (const char* reason = why_not(p, device)) return reason;
  return with_type(
      p, [&]<typename T>(T*) { return nall_backward_of<T>(p, grad, y, gradients, nodes, workspace, device, stream); });
}

}  // namespace stlora::cuda
