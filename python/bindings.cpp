// The module `_C`: turns tensors into calls of csrc. The only C++ that knows Python; nothing here is linked with torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "plain.h"
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

stlora::Activation activation_named(const std::string& name) {
  if (name == "relu") return stlora::Activation::relu;
  return name == "leaky_relu" ? stlora::Activation::leaky_relu : stlora::Activation::none;
}

// In the order of the operator stlora::nall.
#define STLORA_NALL_ARGUMENTS                                                                                \
  int threads, const Tensor &x, const Tensor &given_weight, const Tensor &given_bias, const Tensor &given_A, \
      const Tensor &given_B, const Tensor &seed, const Tensor &given_index, double alpha, double dropout_p,  \
      const std::string &activation, double negative_slope

// Copies, where the kernels could not read what was given, that live until the call returns.
#define STLORA_NALL_PROBLEM                                                                                      \
  const Tensor weight = given_weight.contiguous(), bias = given_bias.contiguous(), A = given_A.per_adapter(),    \
               B = given_B.per_adapter(), node_index = given_index.contiguous();                                 \
  const stlora::NallProblem problem {                                                                            \
    x.dtype(), x.size(0), x.size(1), x.size(2), weight.size(0), A.size(2), A.size(0), strided(x), weight.data(), \
        bias.data(), A.data(), A.stride(0), B.data(), B.stride(0), node_index.data<int64_t>(), alpha, dropout_p, \
        uint64_t(seed.integer()), activation_named(activation), negative_slope                                   \
  }

void nall_forward(STLORA_NALL_ARGUMENTS, const Tensor& y) {
  STLORA_NALL_PROBLEM;
  const py::gil_scoped_release unlocked;
  stlora::cpu::nall_forward(problem, y.data(), threads);
}

void nall_backward(const Tensor& grad, const Tensor& y, const std::array<Tensor, 5>& gradients, STLORA_NALL_ARGUMENTS) {
  STLORA_NALL_PROBLEM;
  const auto& [dx, dweight, dbias, dA, dB] = gradients;
  const stlora::NallGradients out{dx.data(), dweight.data(), dbias.data(), dA.data(), dB.data()};
  const py::gil_scoped_release unlocked;
  stlora::cpu::nall_backward(problem, strided(grad), y.data(), out, threads);
}

using Tensors = std::vector<Tensor>;  // one per layer; biases may be empty

// In the order of the operator stlora::nsp_stack.
#define STLORA_NSP_ARGUMENTS                                                                                   \
  int threads, const Tensor &h, Tensors norm_weights, Tensors weights, Tensors biases, Tensors As, Tensors Bs, \
      const Tensor &seed, const Tensor &given_index, double alpha, double eps, double negative_slope, double dropout_p

#define STLORA_NSP_PROBLEM                                                                                        \
  const auto layers = read_layers(norm_weights, weights, biases, As, Bs);                                         \
  const Tensor node_index = given_index.contiguous();                                                             \
  const stlora::NspProblem problem {                                                                              \
    h.dtype(), h.size(0), h.size(1), h.size(2), As[0].size(0), int64_t(layers.size()), layers.data(), strided(h), \
        node_index.data<int64_t>(), alpha, eps, negative_slope, dropout_p, uint64_t(seed.integer())               \
  }

// Leaves with the caller the copies that the result refers to.
std::vector<stlora::NspLayer> read_layers(Tensors& norm_weights, Tensors& weights, Tensors& biases, Tensors& As,
                                          Tensors& Bs) {
  biases.resize(weights.size());
  std::vector<stlora::NspLayer> layers;
  for (size_t l = 0; l < weights.size(); ++l) {
    Tensor &norm = norm_weights[l], &weight = weights[l], &bias = biases[l], &A = As[l], &B = Bs[l];
    for (Tensor* t : {&norm, &weight, &bias}) *t = t->contiguous();
    for (Tensor* t : {&A, &B}) *t = t->per_adapter();
    layers.push_back(
        {norm.data(), weight.data(), bias.data(), A.data(), A.stride(0), B.data(), B.stride(0), A.size(2)});
  }
  return layers;
}

void nsp_forward(STLORA_NSP_ARGUMENTS, const Tensor& y, const Tensor& saved) {
  STLORA_NSP_PROBLEM;
  const py::gil_scoped_release unlocked;
  stlora::cpu::nsp_forward(problem, y.data(), saved.data(), threads);
}

void nsp_backward(const Tensor& grad, const Tensor& saved, const Tensor& dh,
                  const std::vector<std::array<Tensor, 5>>& gradients, STLORA_NSP_ARGUMENTS) {
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
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const std::invalid_argument& error) {  // what a kernel refuses is the user's error
      py::set_error(py::module_::import("stlora_kernels.errors").attr("InputError"), error.what());
    }
  });
  module.attr("compiler") = STLORA_COMPILER;
  module.def("selected_isa", &stlora::cpu::selected_isa, "The instruction set in use.");
  module.def("select_isa", &stlora::cpu::select_isa,
             "Use this instruction set: avx512_bf16, avx512, avx2 or portable.");
  module.def("isa_supported", &stlora::cpu::isa_supported, "Is it built in, and does this machine offer it?");
  module.def("all_plain", &all_plain, "Are these tensors nothing more than their memory?");
  module.def("plain_nall", &stlora::python::plain_nall, "Are these a NALL, of plain tensors? A no may be a yes.");
  module.def("nall_forward", &nall_forward);
  module.def("nall_backward", &nall_backward);
  module.def("nsp_forward", &nsp_forward);
  module.def("nsp_backward", &nsp_backward);
}
