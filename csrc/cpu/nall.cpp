#include "stlora/nall.h"

#include "kernels.h"

namespace stlora::cpu {
namespace {

Schedule schedule(const NallProblem& p, int threads) {
  const double products = double(p.in) * double(p.out) + double(p.rank) * double(p.in + p.out);
  const double flop = double(p.rows) * double(p.nodes) * (2 * products + kFlopPerRow);
  return {p.rows, p.nodes, p.adapters, p.node_index, kRowBlock, flop, threads};
}

}  // namespace

void nall_forward(const NallProblem& problem, void* y, int threads) {
  kernels().nall->forward[int(problem.dtype)](problem, schedule(problem, threads), y);
}

void nall_backward(const NallProblem& problem, const Strided& grad, const void* y, const NallGradients& gradients,
                   int threads) {
  kernels().nall->backward[int(problem.dtype)](problem, schedule(problem, threads), grad, y, gradients);
}

}  // namespace stlora::cpu
