// A fused operation's arguments, as torch.ops.stlora has them, into the problems that csrc is given.
#pragma once

#include <string>
#include <vector>

#include "stlora/nall.h"
#include "stlora/nsp.h"
#include "tensor.h"

namespace stlora::python {

inline Strided strided(const Tensor& t) {  // [M, N, features]
  return {t.data(), t.stride(0), t.stride(1), t.stride(2)};
}

inline Activation activation_named(const std::string& name) {
  if (name == "relu") return Activation::relu;
  return name == "leaky_relu" ? Activation::leaky_relu : Activation::none;
}

// In the order of the operator stlora::nall.
#define STLORA_NALL_ARGUMENTS                                                                                          \
  const Tensor &x, const Tensor &given_weight, const Tensor &given_bias, const Tensor &given_A, const Tensor &given_B, \
      const Tensor &seed, const Tensor &given_index, double alpha, double dropout_p, const std::string &activation,    \
      double negative_slope

// Copies, where the kernels could not read what was given, that live until the call returns.
#define STLORA_NALL_PROBLEM(seed_number)                                                                         \
  const Tensor weight = given_weight.contiguous(), bias = given_bias.contiguous(), A = given_A.per_adapter(),    \
               B = given_B.per_adapter(), node_index = given_index.contiguous();                                 \
  const stlora::NallProblem problem {                                                                            \
    x.dtype(), x.size(0), x.size(1), x.size(2), weight.size(0), A.size(2), A.size(0), strided(x), weight.data(), \
        bias.data(), A.data(), A.stride(0), B.data(), B.stride(0), node_index.data<int64_t>(), alpha, dropout_p, \
        uint64_t(seed_number), activation_named(activation), negative_slope                                      \
  }

using Tensors = std::vector<Tensor>;  // one per layer; biases may be empty

// In the order of the operator stlora::nsp_stack.
#define STLORA_NSP_ARGUMENTS                                                                                          \
  const Tensor &h, Tensors norm_weights, Tensors weights, Tensors biases, Tensors As, Tensors Bs, const Tensor &seed, \
      const Tensor &given_index, double alpha, double eps, double negative_slope, double dropout_p

#define STLORA_NSP_PROBLEM(seed_number)                                                                           \
  const auto layers = read_layers(norm_weights, weights, biases, As, Bs);                                         \
  const Tensor node_index = given_index.contiguous();                                                             \
  const stlora::NspProblem problem {                                                                              \
    h.dtype(), h.size(0), h.size(1), h.size(2), As[0].size(0), int64_t(layers.size()), layers.data(), strided(h), \
        node_index.data<int64_t>(), alpha, eps, negative_slope, dropout_p, uint64_t(seed_number)                  \
  }

// Leaves with the caller the copies that the result refers to.
inline std::vector<NspLayer> read_layers(Tensors& norm_weights, Tensors& weights, Tensors& biases, Tensors& As,
                                         Tensors& Bs) {
  biases.resize(weights.size());
  std::vector<NspLayer> layers;
  for (size_t l = 0; l < weights.size(); ++l) {
    Tensor &norm = norm_weights[l], &weight = weights[l], &bias = biases[l], &A = As[l], &B = Bs[l];
    for (Tensor* t : {&norm, &weight, &bias}) *t = t->contiguous();
    for (Tensor* t : {&A, &B}) *t = t->per_adapter();
    layers.push_back(
        {norm.data(), weight.data(), bias.data(), A.data(), A.stride(0), B.data(), B.stride(0), A.size(2)});
  }
  return layers;
}

}  // namespace stlora::python
