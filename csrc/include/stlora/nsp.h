// A stack of residual node-adaptive layers, forward and backward: raw pointers, sizes, strides.
//
//   h_l+1 = h_l + NALL_l( s_l ),   s_l = dropout( leaky_relu( w_l * h_l / rms(h_l) ) ),   l = 0 .. L-1
//   rms(h) = sqrt(mean(h^2) + eps),   NALL_l(s) = W_l s + b_l + alpha * A_lp (B_lp s)
//
// Conventions as in nall.h. Element e of [M, N, D] is dropped in layer l by the contract's word of stream 1, layer l.
#pragma once

#include "stlora/nall.h"

namespace stlora {

struct NspLayer {
  const void* norm_weight;  // [D]
  const void* weight;       // [D, D]
  const void* bias;         // [D] or null
  const void* A;            // [P, D, r], adapters A_stride apart
  int64_t A_stride;
  const void* B;  // [P, r, D], adapters B_stride apart
  int64_t B_stride;
  int64_t rank;
};

struct NspProblem {
  DType dtype;
  int64_t rows, nodes, features, adapters;  // M, N, D, P
  int64_t depth;                            // L
  const NspLayer* layers;                   // [L]
  Strided h;                                // [M, N, D]
  const int64_t* node_index;                // [N] or null
  double alpha, eps, negative_slope, dropout_p;
  uint64_t seed;
};

struct NspLayerGradients {  // each contiguous, or null where it is not wanted
  void *norm_weight, *weight, *bias, *A, *B;
};

namespace cpu {

// y is contiguous [M, N, D]. `saved` takes the inputs of the layers after the first for the backward pass, in the
// compute type (fp64 for fp64, else fp32): [N, L-1, M, D]; null where there will be none.
void nsp_forward(const NspProblem& problem, void* y, void* saved, int threads);

// dh is contiguous [M, N, D] or null; layers[l] are the gradients of layer l.
// For a fixed number of threads the results are the same bits from run to run.
void nsp_backward(const NspProblem& problem, const Strided& grad, const void* saved, void* dh,
                  const NspLayerGradients* layers, int threads);

}  // namespace cpu
}  // namespace stlora
