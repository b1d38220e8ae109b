// The module `_C`: turns tensors into calls of csrc. The only C++ that knows Python; nothing here is linked with torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <vector>

#include "fits.h"
#include "stlora/isa.h"
#include "stlora/nall.h"
#include "stlora/nsp.h"
#include "tensor.h"

namespace py = pybind11;
using stlora::python::Tensor;

namespace {

stlora::Strided strided(const Tensor& t) {  // [M, N, features]
  return {t.data(), t.stride(0), t.stride(1), t.stride(2)};
}

#define STLORA_NALL_ARGUMENTS                                                                                         \
  int threads, const Tensor &x, const Tensor &given_weight, const Tensor &given_bias, const Tensor &given_A,          \
      const Tensor &given_B, int64_t seed, const Tensor &given_index, double alpha, double dropout_p, int activation, \
      double negative_slope

// Copies, where the kernels could not read what was given, that live until the call returns.
#define STLORA_NALL_PROBLEM                                                                                      \
  const Tensor weight = given_weight.contiguous(), bias = given_bias.contiguous(), A = given_A.per_adapter(),    \
               B = given_B.per_adapter(), node_index = given_index.contiguous();                                 \
  const stlora::NallProblem problem {                                                                            \
    x.dtype(), x.size(0), x.size(1), x.size(2), weight.size(0), A.size(2), A.size(0), strided(x), weight.data(), \
        bias.data(), A.data(), A.stride(0), B.data(), B.stride(0), node_index.data<int64_t>(), alpha, dropout_p, \
        uint64_t(seed), stlora::Activation(activation), negative_slope                                           \
  }

void nall_forward(STLORA_NALL_ARGUMENTS, const Tensor& y) {
  STLORA_NALL_PROBLEM;
  const py::gil_scoped_release unlocked;
  stlora::cpu::nall_forward(problem, y.data(), threads);
}

void nall_backward(STLORA_NALL_ARGUMENTS, const Tensor& grad, const Tensor& y, const Tensor& dx, const Tensor& dweight,
                   const Tensor& dbias, const Tensor& dA, const Tensor& dB) {
  STLORA_NALL_PROBLEM;
  const py::gil_scoped_release unlocked;
  stlora::cpu::nall_backward(problem, strided(grad), y.data(),
                             {dx.data(), dweight.data(), dbias.data(), dA.data(), dB.data()}, threads);
}

using LayerTensors = std::array<Tensor, 5>;  // norm weight, weight, bias, A, B

#define STLORA_NSP_ARGUMENTS                                                                               \
  int threads, const Tensor &h, std::vector<LayerTensors> layers, int64_t seed, const Tensor &given_index, \
      double alpha, double eps, double negative_slope, double dropout_p

#define STLORA_NSP_PROBLEM                                                                                        \
  const std::vector<stlora::NspLayer> layers_read = read(layers);                                                 \
  const Tensor node_index = given_index.contiguous();                                                             \
  const stlora::NspProblem problem {                                                                              \
    h.dtype(), h.size(0), h.size(1), h.size(2), layers[0][3].size(0), int64_t(layers.size()), layers_read.data(), \
        strided(h), node_index.data<int64_t>(), alpha, eps, negative_slope, dropout_p, uint64_t(seed)             \
  }

// Leaves in `layers` the copies that the result refers to.
std::vector<stlora::NspLayer> read(std::vector<LayerTensors>& layers) {
  std::vector<stlora::NspLayer> result;
  for (auto& [norm, weight, bias, A, B] : layers) {
    norm = norm.contiguous(), weight = weight.contiguous(), bias = bias.contiguous();
    A = A.per_adapter(), B = B.per_adapter();
    result.push_back(
        {norm.data(), weight.data(), bias.data(), A.data(), A.stride(0), B.data(), B.stride(0), A.size(2)});
  }
  return result;
}

void nsp_forward(STLORA_NSP_ARGUMENTS, const Tensor& y, const Tensor& saved) {
  STLORA_NSP_PROBLEM;
  const py::gil_scoped_release unlocked;
  stlora::cpu::nsp_forward(problem, y.data(), saved.data(), threads);
}

void nsp_backward(STLORA_NSP_ARGUMENTS, const Tensor& grad, const Tensor& saved, const Tensor& dh,
                  const std::vector<LayerTensors>& gradients) {
  STLORA_NSP_PROBLEM;
  std::vector<stlora::NspLayerGradients> out;
  for (const auto& [norm, weight, bias, A, B] : gradients)
    out.push_back({norm.data(), weight.data(), bias.data(), A.data(), B.data()});
  const py::gil_scoped_release unlocked;
  stlora::cpu::nsp_backward(problem, strided(grad), saved.data(), dh.data(), out.data(), threads);
}

bool all_plain(const py::tuple& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), &stlora::python::is_plain);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "CPU kernels of stlora_kernels, called with tensors.";
  module.attr("compiler") = STLORA_COMPILER;
  module.def("selected_isa", &stlora::cpu::selected_isa, "The instruction set in use.");
  module.def("select_isa", &stlora::cpu::select_isa,
             "Use this instruction set: avx512_bf16, avx512, avx2 or portable.");
  module.def("isa_supported", &stlora::cpu::isa_supported, "Is it built in, and does this machine offer it?");
  module.def("all_plain", &all_plain, "Are these tensors nothing more than their memory?");
  module.def("nall_fits", &stlora::python::nall_fits, "Do these arguments make a NALL? A no may be a yes.");
  module.def("nall_forward", &nall_forward);
  module.def("nall_backward", &nall_backward);
  module.def("nsp_forward", &nsp_forward);
  module.def("nsp_backward", &nsp_backward);
}
