// The module `_C`: turns tensors into calls of csrc. The only C++ that knows Python; nothing here is linked with torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "plain.h"
#ifdef STLORA_CUDA_ARCHITECTURES
#include "cuda.h"
#endif
#include "problems.h"
#include "stlora/isa.h"

namespace py = pybind11;
using namespace stlora::python;

namespace {

void nall_forward(int threads, STLORA_NALL_ARGUMENTS, const Tensor& y) {
  STLORA_NALL_PROBLEM(seed.integer());
  const py::gil_scoped_release unlocked;
  stlora::cpu::nall_forward(problem, y.data(), threads);
}

void nall_backward(const Tensor& grad, const Tensor& y, const std::array<Tensor, 5>& gradients, int threads,
                   STLORA_NALL_ARGUMENTS) {
  STLORA_NALL_PROBLEM(seed.integer());
  const auto& [dx, dweight, dbias, dA, dB] = gradients;
  const stlora::NallGradients out{dx.data(), dweight.data(), dbias.data(), dA.data(), dB.data()};
  const py::gil_scoped_release unlocked;
  stlora::cpu::nall_backward(problem, strided(grad), y.data(), out, threads);
}

void nsp_forward(int threads, STLORA_NSP_ARGUMENTS, const Tensor& y, const Tensor& saved) {
  STLORA_NSP_PROBLEM(seed.integer());
  const py::gil_scoped_release unlocked;
  stlora::cpu::nsp_forward(problem, y.data(), saved.data(), threads);
}

void nsp_backward(const Tensor& grad, const Tensor& saved, const Tensor& dh,
                  const std::vector<std::array<Tensor, 5>>& gradients, int threads, STLORA_NSP_ARGUMENTS) {
  STLORA_NSP_PROBLEM(seed.integer());
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
#ifdef STLORA_CUDA_ARCHITECTURES
  stlora::python::define_cuda(module);
  module.attr("cuda_architectures") = STLORA_CUDA_ARCHITECTURES;
  module.attr("cuda_compiler") = STLORA_CUDA_COMPILER;
#endif
}
