#include "stlora/nsp.h"

#include "kernels.h"

namespace stlora::cpu {
namespace {

Schedule schedule(const NspProblem& p, int threads) {
  const double flop = 2.0 * double(p.rows) * double(p.nodes) * double(p.features) * double(p.features) * p.depth;
  return {p.rows, p.nodes, p.adapters, p.node_index, nsp_chunk(p), flop, threads};
}

}  // namespace

int64_t nsp_chunk(const NspProblem& p) {
  constexpr int64_t kBytes = 256 << 10;  // a quarter to half of the L2 cache of today's cores
  const int64_t rows =
      kBytes / ((p.features > 0 ? p.features : 1) * int64_t(p.dtype == DType::f64 ? sizeof(double) : sizeof(float)));
  const int64_t tiles = rows / kRowBlock > 1 ? rows / kRowBlock : 1, needed = (p.rows + kRowBlock - 1) / kRowBlock;
  return kRowBlock * (tiles < needed ? tiles : needed > 1 ? needed : 1);
}

void nsp_forward(const NspProblem& problem, void* y, void* saved, int threads) {
  kernels().nsp->forward[int(problem.dtype)](problem, schedule(problem, threads), y, saved);
}

void nsp_backward(const NspProblem& problem, const Strided& grad, const void* saved, void* dh,
                  const NspLayerGradients* layers, int threads) {
  kernels().nsp->backward[int(problem.dtype)](problem, schedule(problem, threads), grad, saved, dh, layers);
}

}  // namespace stlora::cpu
