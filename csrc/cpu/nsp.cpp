#include "stlora/nsp.h"

#include "kernels.h"

namespace stlora::cpu {
namespace {

Schedule schedule(const NspProblem& p, int threads) {
  const double products = double(p.features) * double(p.features);
  const double flop = double(p.rows) * double(p.nodes) * (2 * products + kFlopPerRow) * double(p.depth);
  return {p.rows, p.nodes, p.adapters, p.node_index, kRowBlock, flop, threads};
}

}  // namespace

void nsp_forward(const NspProblem& problem, void* y, void* saved, int threads) {
  kernels().nsp->forward[int(problem.dtype)](problem, schedule(problem, threads), y, saved);
}

void nsp_backward(const NspProblem& problem, const Strided& grad, const void* saved, void* dh,
                  const NspLayerGradients* layers, int threads) {
  kernels().nsp->backward[int(problem.dtype)](problem, schedule(problem, threads), grad, saved, dh, layers);
}

}  // namespace stlora::cpu
