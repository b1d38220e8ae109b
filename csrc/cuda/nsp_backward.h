// Backward of the NSP stack: one grid of three roles behind a ticket, so that who waits waits for blocks that run.
//
//   rows        dL/dh through all layers (nsp_rows.h);
//   parameters  once all rows are done: dW, db, dA, dB of a layer by the NALL's own roles (nall_backward.h);
//   norm        likewise: 16 columns of dL/dnorm of one layer, the ordered sum of what the rows' blocks have left.
#pragma once

#include "nall_backward.h"
#include "nsp_rows.h"

namespace stlora::cuda {

constexpr int kNormColumns = 16, kNormLanes = kThreads / kNormColumns;

template <typename T>
__device__ void norm_gradient(const StackBackward<T>& w, Ptr<unsigned char> memory, int64_t job) {
  const int D = w.stack.features, blocks = (D + kNormColumns - 1) / kNormColumns;
  const int layer = int(job / blocks), c = int(job % blocks) * kNormColumns + threadIdx.x % kNormColumns;
  const Ptr<float> sums = as<float>(memory);
  const Ptr<const float> parts = w.norm_parts;
  float sum = 0;
  if (c < D)
    for (int64_t q = threadIdx.x / kNormColumns; q < w.row_blocks; q += kNormLanes)
      sum += parts[(q * w.stack.depth + layer) * D + c];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= kNormColumns || c >= D) return;
  for (int lane = 1; lane < kNormLanes; ++lane) sum += sums[lane * kNormColumns + threadIdx.x];
  Ptr<T>(static_cast<T*>(w.out[layer].norm_weight))[c] = rounded<T>(sum);
}

template <typename T>
__device__ void layer_gradients(const StackBackward<T>& w, Ptr<unsigned char> memory, int64_t job) {
  const int64_t blocks = w.layer.shares.blocks, number = job / blocks;
  const int64_t before = number * w.stack.rows * w.stack.nodes * w.stack.features;
  const NspLayer& parameters = w.stack.layers[number];
  const NspLayerGradients& out = w.out[number];
  Backward<T> of = w.layer;
  of.p.rank = parameters.rank;
  of.p.A = parameters.A;
  of.p.A_stride = parameters.A_stride;
  of.p.B = parameters.B;
  of.p.B_stride = parameters.B_stride;
  of.p.x.data = w.inner_s + before;
  of.grad.data = w.inner_g + before;
  of.out = {nullptr, out.weight, out.bias, out.A, out.B};
  of.parts += number * w.layer.shares.floats;
  of.counters += number * w.layer.shares.counters;
  parameter_gradients(of, BackwardLayout<T>(of.p, of.twice), memory, job % blocks);
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kAtOnce) nsp_backward_kernel(StackBackward<T> w) {
  STLORA_SHARED(memory);
  const Ptr<unsigned> counters = w.counters, word = as<unsigned>(memory);
  if (threadIdx.x == 0) word[0] = atomicAdd(counters, 1u);
  __syncthreads();
  const int64_t ticket = word[0];
  __syncthreads();
  if (ticket < w.row_blocks) {
    rows_backward(w, memory, ticket);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(counters + 1, 1u);
  } else {
    if (threadIdx.x == 0)
      while (atomicAdd(counters + 1, 0u) < w.row_blocks) continue;
    __threadfence();
    __syncthreads();
    const int64_t job = ticket - w.row_blocks, of_layers = w.stack.depth * w.layer.shares.blocks;
    if (job < of_layers)
      layer_gradients(w, memory, job);
    else
      norm_gradient(w, memory, job - of_layers);
  }
  if (threadIdx.x == 0 && atomicAdd(counters + 2, 1u) == gridDim.x - 1)
    for (int i = 0; i < 3; ++i) counters[i] = 0;  // as the next launch expects them
}

// Two buffers for both parts of the kernel, or one for both.
template <typename T>
std::size_t stack_backward_bytes(const NspProblem& p, bool twice) {
  return std::max(StackRowsLayout<T>(Stack<T>(p, nullptr, nullptr), twice).bytes,
                  BackwardLayout<T>(layer_of(p), twice).bytes);
}

template <typename T>
bool stack_backward_twice(const NspProblem& p, const Device& device) {
  return worth_twice(stack_backward_bytes<T>(p, false), stack_backward_bytes<T>(p, true), device);
}

template <typename T>
const char* launch_nsp_backward(const NspProblem& p, const Strided& grad, const float* saved, void* dh,
                                const NspLayerGradients* out, const Nodes& nodes, void* left,
                                const Workspace& workspace, const Launch& on) {
  const StackShares s = stack_shares(p, out, on.device);
  const int64_t all = p.rows * p.nodes * p.features;
  const int64_t norm_blocks = out[0].norm_weight ? (p.features + kNormColumns - 1) / kNormColumns : 0;
  const int64_t blocks = s.row_blocks + p.depth * (s.layer.blocks + norm_blocks);
  if (blocks == 0) return nullptr;
  const Stack<T> stack(p, saved, on.seed_at);
  T *inner_g = s.layer.blocks ? static_cast<T*>(left) : nullptr, *inner_s = inner_g ? inner_g + p.depth * all : nullptr;
  NallProblem layer = layer_of(p);
  layer.x = {inner_s, p.nodes * p.features, p.features, 1};
  Backward<T> of(layer, {inner_g, p.nodes * p.features, p.features, 1}, nullptr, {}, nodes, workspace, s.layer,
                 Dropout(0, 0, nullptr, 0), stack_backward_twice<T>(p, on.device));
  of.w_aligned = stack.aligned;
  of.a_aligned = stack.a_aligned;
  of.x_aligned = of.g_aligned = p.features % (16 / int64_t(sizeof(T))) == 0 && begins_at_16_bytes<T>(left);
  StackBackward<T> work{stack,
                        grad,
                        static_cast<T*>(dh),
                        inner_g,
                        inner_s,
                        workspace.floats + s.chain,
                        workspace.floats + s.norm_parts,
                        s.row_blocks,
                        {},
                        of,
                        workspace.counters + p.depth * s.layer.counters};
  std::copy(out, out + p.depth, work.out);
  return launch(nsp_backward_kernel<T>, unsigned(blocks), kThreads, stack_backward_bytes<T>(p, of.twice), on, work);
}

}  // namespace stlora::cuda
