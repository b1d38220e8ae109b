#include "stlora/nsp.h"

#include "kernels.h"
#include "pages.h"

namespace stlora::cpu {
namespace {

Schedule schedule(const NspProblem& p, int threads) {
  const double products = double(p.features) * double(p.features);
  const double flop = double(p.rows) * double(p.nodes) * (2 * products + row_flop(2 * p.features)) * double(p.depth);
  return {p.rows, p.nodes, p.adapters, p.node_index, kRowBlock, flop, threads};
}

}  // namespace

void nsp_forward(const NspProblem& problem, void* y, void* saved, int threads) {
  const int64_t numbers = problem.rows * problem.nodes * problem.features;
  prefer_huge_pages(y, numbers * size_of(problem.dtype));
  prefer_huge_pages(saved, (problem.depth - 1) * numbers * (problem.dtype == DType::f64 ? 8 : 4));
  kernels().nsp->forward[int(problem.dtype)](problem, schedule(problem, threads), y, saved);
}

void nsp_backward(const NspProblem& problem, const Strided& grad, const void* saved, void* dh,
                  const NspLayerGradients* layers, int threads) {
  const int64_t size = size_of(problem.dtype);
  prefer_huge_pages(dh, problem.rows * problem.nodes * problem.features * size);
  for (int64_t l = 0; l < problem.depth; ++l) {
    const int64_t factor = problem.adapters * problem.layers[l].rank * problem.features * size;
    prefer_huge_pages(layers[l].A, factor);
    prefer_huge_pages(layers[l].B, factor);
  }
  kernels().nsp->backward[int(problem.dtype)](problem, schedule(problem, threads), grad, saved, dh, layers);
}

}  // namespace stlora::cpu
