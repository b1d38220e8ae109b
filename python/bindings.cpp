// The module `_C`: turns addresses into calls of csrc. The only C++ that knows Python; nothing here knows torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "stlora/isa.h"
#include "stlora/nall.h"
#include "stlora/nsp.h"

namespace py = pybind11;
using Address = uintptr_t;

namespace {

template <typename T = const void>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

#define STLORA_NALL_ARGUMENTS                                                                                         \
  int threads, int dtype, int64_t M, int64_t N, int64_t I, int64_t O, int64_t r, int64_t P, Address x, int64_t x_row, \
      int64_t x_node, int64_t x_feature, Address weight, Address bias, Address A, int64_t A_stride, Address B,        \
      int64_t B_stride, Address node_index, double alpha, double dropout_p, int64_t seed, int activation,             \
      double negative_slope

#define STLORA_NALL_PROBLEM                                                                                           \
  stlora::NallProblem {                                                                                               \
    stlora::DType(dtype), M, N, I, O, r, P, {at(x), x_row, x_node, x_feature}, at(weight), at(bias), at(A), A_stride, \
        at(B), B_stride, at<const int64_t>(node_index), alpha, dropout_p, uint64_t(seed),                             \
        stlora::Activation(activation), negative_slope                                                                \
  }

void nall_forward(STLORA_NALL_ARGUMENTS, Address y) {
  py::gil_scoped_release unlocked;
  stlora::cpu::nall_forward(STLORA_NALL_PROBLEM, at<void>(y), threads);
}

void nall_backward(STLORA_NALL_ARGUMENTS, Address grad, int64_t grad_row, int64_t grad_node, int64_t grad_feature,
                   Address y, Address dx, Address dweight, Address dbias, Address dA, Address dB) {
  py::gil_scoped_release unlocked;
  stlora::cpu::nall_backward(STLORA_NALL_PROBLEM, {at(grad), grad_row, grad_node, grad_feature}, at(y),
                             {at<void>(dx), at<void>(dweight), at<void>(dbias), at<void>(dA), at<void>(dB)}, threads);
}

using LayerAddresses = std::array<Address, 8>;     // norm weight, weight, bias, A, its stride, B, its stride, rank
using GradientAddresses = std::array<Address, 5>;  // norm weight, weight, bias, A, B

#define STLORA_NSP_ARGUMENTS                                                                                     \
  int threads, int dtype, int64_t M, int64_t N, int64_t D, int64_t P, const std::vector<LayerAddresses>&layers,  \
      Address h, int64_t h_row, int64_t h_node, int64_t h_feature, Address node_index, double alpha, double eps, \
      double negative_slope, double dropout_p, int64_t seed

#define STLORA_NSP_PROBLEM(layers)                                                                              \
  stlora::NspProblem {                                                                                          \
    stlora::DType(dtype), M, N, D, P, int64_t(layers.size()), layers.data(), {at(h), h_row, h_node, h_feature}, \
        at<const int64_t>(node_index), alpha, eps, negative_slope, dropout_p, uint64_t(seed)                    \
  }

std::vector<stlora::NspLayer> layers_at(const std::vector<LayerAddresses>& layers) {
  std::vector<stlora::NspLayer> result;
  for (const LayerAddresses& l : layers)
    result.push_back({at(l[0]), at(l[1]), at(l[2]), at(l[3]), int64_t(l[4]), at(l[5]), int64_t(l[6]), int64_t(l[7])});
  return result;
}

void nsp_forward(STLORA_NSP_ARGUMENTS, Address y, Address saved) {
  const auto all = layers_at(layers);
  py::gil_scoped_release unlocked;
  stlora::cpu::nsp_forward(STLORA_NSP_PROBLEM(all), at<void>(y), at<void>(saved), threads);
}

void nsp_backward(STLORA_NSP_ARGUMENTS, Address grad, int64_t grad_row, int64_t grad_node, int64_t grad_feature,
                  Address saved, Address dh, const std::vector<GradientAddresses>& gradients) {
  const auto all = layers_at(layers);
  std::vector<stlora::NspLayerGradients> out;
  for (const GradientAddresses& g : gradients)
    out.push_back({at<void>(g[0]), at<void>(g[1]), at<void>(g[2]), at<void>(g[3]), at<void>(g[4])});
  py::gil_scoped_release unlocked;
  stlora::cpu::nsp_backward(STLORA_NSP_PROBLEM(all), {at(grad), grad_row, grad_node, grad_feature}, at(saved),
                            at<void>(dh), out.data(), threads);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "CPU kernels of stlora_kernels, called with the addresses of tensors.";
  module.attr("compiler") = STLORA_COMPILER;
  module.def("selected_isa", &stlora::cpu::selected_isa, "The instruction set in use.");
  module.def("select_isa", &stlora::cpu::select_isa,
             "Use this instruction set: avx512_bf16, avx512, avx2 or portable.");
  module.def("isa_supported", &stlora::cpu::isa_supported, "Is it built in, and does this machine offer it?");
  module.def("nall_forward", &nall_forward);
  module.def("nall_backward", &nall_backward);
  module.def("nsp_forward", &nsp_forward);
  module.def("nsp_backward", &nsp_backward);
}
