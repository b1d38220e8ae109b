// The node-adaptive low-rank layer, forward and backward: raw pointers, sizes, strides.
//
//   y[m,n] = act( W x[m,n] + b + alpha * A_p (B_p dropout(x[m,n])) ),   p = node_index ? node_index[n] : n
//
// Everything here is in elements, not bytes. Failures are C++ exceptions: std::invalid_argument for a node_index
// out of range, std::bad_alloc for memory.
#pragma once

#include <cstdint>

namespace stlora {

enum class DType : int { f32, f64, bf16, f16 };
inline int64_t size_of(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }
enum class Activation : int { none, relu, leaky_relu };

struct Strided {  // a [M, N, features] array anywhere in memory; any stride may be zero
  const void* data;
  int64_t row, node, feature;
};

struct NallProblem {
  DType dtype;
  int64_t rows, nodes, in, out, rank, adapters;  // M, N, I, O, r, P
  Strided x;                                     // [M, N, I]
  const void* weight;                            // [O, I]
  const void* bias;                              // [O] or null
  const void* A;                                 // [P, O, r], adapters A_stride apart
  int64_t A_stride;
  const void* B;  // [P, r, I], adapters B_stride apart
  int64_t B_stride;
  const int64_t* node_index;  // [N] or null: every node its own adapter
  double alpha;
  double dropout_p;
  uint64_t seed;
  Activation activation;
  double negative_slope;
};

struct NallGradients {  // each contiguous in the problem's dtype, or null where it is not wanted
  void* x;              // [M, N, I]
  void* weight;         // [O, I]
  void* bias;           // [O]
  void* A;              // [P, O, r]
  void* B;              // [P, r, I]
};

namespace cpu {

// y is contiguous [M, N, O].
void nall_forward(const NallProblem& problem, void* y, int threads);

// grad is dL/dy; y is the forward's output, read only where there is an activation.
// For a fixed number of threads the results are the same bits from run to run.
void nall_backward(const NallProblem& problem, const Strided& grad, const void* y, const NallGradients& gradients,
                   int threads);

}  // namespace cpu
}  // namespace stlora
