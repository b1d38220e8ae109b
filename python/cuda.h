// The CUDA kernels for Python: of the module `_C` on a GPU, and of the emulator's module in the tests, where memory
// that kernels may touch is watched.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "problems.h"
#include "stlora/cuda.h"
#ifdef STLORA_EMULATED
#include <list>

#include "simt.h"
#endif

namespace stlora::python {

// While it lives, the emulated kernels may touch these tensors.
class Touched {
 public:
  explicit Touched([[maybe_unused]] const std::vector<const Tensor*>& tensors) {
#ifdef STLORA_EMULATED
    for (const Tensor* t : tensors) allowed_.emplace_back(t->data(), std::size_t(t->bytes_spanned()), "a tensor");
#endif
  }

 private:
#ifdef STLORA_EMULATED
  std::list<simt::Allow> allowed_;
#endif
};

// multiprocessors, bytes of shared memory a block may have
using DeviceTuple = std::tuple<int, std::size_t>;
// the device, stream, may fp32 be tf32, is the seed on the device
using LaunchTuple = std::tuple<DeviceTuple, std::uintptr_t, bool, bool>;

inline cuda::Device device_of(const DeviceTuple& t) { return {std::get<0>(t), std::get<1>(t)}; }

inline cuda::Launch launch_of(const LaunchTuple& t, const Tensor& seed) {
  const auto& [device, stream, tf32, there] = t;
  return {device_of(device), reinterpret_cast<void*>(stream), tf32, there ? seed.data<int64_t>() : nullptr};
}

inline bool seed_there(const LaunchTuple& t) { return std::get<3>(t); }

inline void check(const char* operation, const char* refused) {
  if (refused) throw std::runtime_error(std::string(operation) + " on the GPU: " + refused);
}

// Given by Python: from numbers of floats and counters to a tensor of each, the counters zero.
using MakeRoom = py::function;

class Room {
 public:
  Room(const MakeRoom& make, const cuda::WorkspaceSize& size) {
    const py::tuple made = make(size.floats, size.counters);
    floats = Tensor(made[0]);
    counters = Tensor(made[1]);
  }
  cuda::Workspace workspace() const { return {floats.data<float>(), counters.data<unsigned>()}; }
  Tensor floats, counters;
};

inline void cuda_nall_forward(const LaunchTuple& launch, STLORA_NALL_ARGUMENTS, const Tensor& y) {
  STLORA_NALL_PROBLEM(seed_there(launch) ? 0 : seed.integer());
  const Touched touched({&x, &weight, &bias, &A, &B, &seed, &node_index, &y});
  const py::gil_scoped_release unlocked;
  check("nall", cuda::nall_forward(problem, y.data(), launch_of(launch, seed)));
}

inline void cuda_nall_backward(const LaunchTuple& launch, const MakeRoom& make, const Tensor& grad, const Tensor& y,
                               const std::array<Tensor, 5>& gradients, const Tensor& order, const Tensor& first_slot,
                               STLORA_NALL_ARGUMENTS) {
  STLORA_NALL_PROBLEM(seed_there(launch) ? 0 : seed.integer());
  const auto& [dx, dweight, dbias, dA, dB] = gradients;
  const NallGradients out{dx.data(), dweight.data(), dbias.data(), dA.data(), dB.data()};
  const cuda::Launch on = launch_of(launch, seed);
  const Room room(make, cuda::nall_backward_workspace(problem, out, on.device));
  const Touched touched({&x, &weight, &bias, &A, &B, &seed, &node_index, &y, &grad, &dx, &dweight, &dbias, &dA, &dB,
                         &order, &first_slot, &room.floats, &room.counters});
  const py::gil_scoped_release unlocked;
  check("nall backward",
        cuda::nall_backward(problem, strided(grad), y.data(), out, {order.data<int64_t>(), first_slot.data<int64_t>()},
                            room.workspace(), on));
}

inline std::vector<const Tensor*> addresses(const std::vector<const Tensors*>& lists,
                                            std::vector<const Tensor*> tensors) {
  for (const Tensors* list : lists)
    for (const Tensor& t : *list) tensors.push_back(&t);
  return tensors;
}

inline void cuda_nsp_forward(const LaunchTuple& launch, STLORA_NSP_ARGUMENTS, const Tensor& y, const Tensor& saved) {
  STLORA_NSP_PROBLEM(seed_there(launch) ? 0 : seed.integer());
  const Touched touched(addresses({&norm_weights, &weights, &biases, &As, &Bs}, {&h, &seed, &node_index, &y, &saved}));
  const py::gil_scoped_release unlocked;
  check("nsp_stack", cuda::nsp_forward(problem, y.data(), saved.data<float>(), launch_of(launch, seed)));
}

inline void cuda_nsp_backward(const LaunchTuple& launch, const MakeRoom& make, const Tensor& grad, const Tensor& saved,
                              const Tensor& dh, const std::vector<std::array<Tensor, 5>>& gradients, const Tensor& left,
                              const Tensor& order, const Tensor& first_slot, STLORA_NSP_ARGUMENTS) {
  STLORA_NSP_PROBLEM(seed_there(launch) ? 0 : seed.integer());
  std::vector<NspLayerGradients> out;
  Tensors results;
  for (const auto& [norm, weight, bias, A, B] : gradients) {
    out.push_back({norm.data(), weight.data(), bias.data(), A.data(), B.data()});
    results.insert(results.end(), {norm, weight, bias, A, B});
  }
  const cuda::Launch on = launch_of(launch, seed);
  const Room room(make, cuda::nsp_backward_workspace(problem, out.data(), on.device));
  const Touched touched(addresses(
      {&norm_weights, &weights, &biases, &As, &Bs, &results},
      {&h, &seed, &node_index, &grad, &saved, &dh, &left, &order, &first_slot, &room.floats, &room.counters}));
  const py::gil_scoped_release unlocked;
  check("nsp_stack backward",
        cuda::nsp_backward(problem, strided(grad), saved.data<float>(), dh.data(), out.data(),
                           {order.data<int64_t>(), first_slot.data<int64_t>()}, left.data(), room.workspace(), on));
}

#ifndef STLORA_EMULATED
inline DeviceTuple cuda_device(int number) {
  cuda::Device device{};
  check("the device's properties", cuda::ask_device(number, device));
  return {device.multiprocessors, device.shared_memory};
}
#endif

inline DType dtype_named(const std::string& name) {
  if (name == "float16") return DType::f16;
  if (name == "bfloat16") return DType::bf16;
  return name == "float32" ? DType::f32 : DType::f64;
}

// Why the kernels do not cover so many features and such a rank, or None.
inline const char* cuda_why_not_nall(const DeviceTuple& device, const std::string& dtype, int64_t rank, int64_t in,
                                     int64_t out, bool dropout) {
  NallProblem p{};
  p.dtype = dtype_named(dtype);
  p.in = in;
  p.out = out;
  p.rank = rank;
  p.dropout_p = dropout ? 0.5 : 0;
  return cuda::why_not_nall(p, device_of(device));
}

inline const char* cuda_why_not_nsp(const DeviceTuple& device, const std::string& dtype, int64_t rank, int64_t features,
                                    int64_t depth) {
  NspLayer layer{};
  layer.rank = rank;
  const std::vector<NspLayer> layers(std::size_t(depth), layer);
  NspProblem p{};
  p.dtype = dtype_named(dtype);
  p.features = features;
  p.depth = depth;
  p.layers = layers.data();
  return cuda::why_not_nsp(p, device_of(device));
}

inline void define_cuda(py::module_& module) {
#ifndef STLORA_EMULATED
  module.def("cuda_device", &cuda_device, "Multiprocessors of a GPU, and bytes of shared memory a block may have.");
#endif
  module.def("cuda_nall_forward", &cuda_nall_forward);
  module.def("cuda_nall_backward", &cuda_nall_backward);
  module.def("cuda_nsp_forward", &cuda_nsp_forward);
  module.def("cuda_nsp_backward", &cuda_nsp_backward);
  module.def("cuda_why_not_nall", &cuda_why_not_nall);
  module.def("cuda_why_not_nsp", &cuda_why_not_nsp);
}

}  // namespace stlora::python
