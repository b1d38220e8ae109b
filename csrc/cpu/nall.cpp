#include "stlora/nall.h"

#include "kernels.h"
#include "pages.h"

namespace stlora::cpu {
namespace {

Schedule schedule(const NallProblem& p, int threads) {
  const double products = double(p.in) * double(p.out) + double(p.rank) * double(p.in + p.out);
  const double flop = double(p.rows) * double(p.nodes) * (2 * products + row_flop(p.in + p.out));
  return {p.rows, p.nodes, p.adapters, p.node_index, kRowBlock, flop, threads};
}

}  // namespace

void nall_forward(const NallProblem& problem, void* y, int threads) {
  prefer_huge_pages(y, problem.rows * problem.nodes * problem.out * size_of(problem.dtype));
  kernels().nall->forward[int(problem.dtype)](problem, schedule(problem, threads), y);
}

void nall_backward(const NallProblem& problem, const Strided& grad, const void* y, const NallGradients& gradients,
                   int threads) {
  const int64_t size = size_of(problem.dtype), factor = problem.adapters * problem.rank * size;
  prefer_huge_pages(gradients.x, problem.rows * problem.nodes * problem.in * size);
  prefer_huge_pages(gradients.A, problem.out * factor);
  prefer_huge_pages(gradients.B, problem.in * factor);
  kernels().nall->backward[int(problem.dtype)](problem, schedule(problem, threads), grad, y, gradients);
}

}  // namespace stlora::cpu
