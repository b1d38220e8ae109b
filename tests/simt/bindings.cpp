// The module `_simt`: the CUDA kernels of csrc on the emulator, with the functions that `_C` has for a GPU.
#include "cuda.h"

namespace stlora::cuda {
simt::Options& emulation() {
  static simt::Options options;
  return options;
}
}  // namespace stlora::cuda

PYBIND11_MODULE(_simt, module) {
  namespace py = pybind11;
  stlora::python::define_cuda(module);
  module.def(
      "emulate",
      [](unsigned seed, std::size_t shared_limit, unsigned resident) {
        stlora::cuda::emulation() = {seed, shared_limit, resident};
      },
      "How kernels run from now on: the order of threads, bytes a block may have, blocks side by side.");
  module.def(
      "launches",
      [] {
        py::list all;
        for (const auto& l : simt::launches())
          all.append(py::make_tuple(l.blocks, l.threads, l.shared_bytes, l.read, l.written));
        simt::launches().clear();
        return all;
      },
      "Blocks, threads, bytes of shared memory, and bytes of global memory read and written, of every launch since "
      "last "
      "asked.");
}
