// What is compiled once per kind of number, each in a file of its own, and chosen from at run time.
#pragma once

#include "stlora/cuda.h"

namespace stlora::cuda {

enum class Numbers { f32, tf32, f16, bf16 };

template <Numbers>
struct Kernels {
  static bool nall_fits(const NallProblem&, const Device&);
  static const char* nall_forward(const NallProblem&, void* y, const Launch&);
  static const char* nall_backward(const NallProblem&, const Strided& grad, const void* y, const NallGradients&,
                                   const Nodes&, const Workspace&, const Launch&);
  static bool nsp_fits(const NspProblem&, const Device&);
  static const char* nsp_forward(const NspProblem&, void* y, float* saved, const Launch&);
  static const char* nsp_backward(const NspProblem&, const Strided& grad, const float* saved, void* dh,
                                  const NspLayerGradients*, const Nodes&, void* left, const Workspace&, const Launch&);
};

// `f` of the kernels of a type, which is not f64.
template <typename F>
auto with_kernels(DType dtype, bool tf32, F&& f) {
  if (dtype == DType::f16) return f(Kernels<Numbers::f16>{});
  if (dtype == DType::bf16) return f(Kernels<Numbers::bf16>{});
  return tf32 ? f(Kernels<Numbers::tf32>{}) : f(Kernels<Numbers::f32>{});
}

}  // namespace stlora::cuda
