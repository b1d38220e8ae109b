// The scratch of a thread stays within what the docstrings of sk.nall and sk.nsp_stack promise.
#include <initializer_list>

#include "check.h"
#include "nall_backward.h"
#include "nsp_backward.h"

namespace stlora::cpu::STLORA_ISA {
namespace {

int64_t up(int64_t n) { return (n + 31) / 32 * 32; }

template <typename S>
void nall(int64_t in, int64_t out, int64_t rank) {
  using T = Compute<S>;
  NallProblem p{};
  p.rows = 768, p.nodes = p.adapters = 9, p.in = in, p.out = out, p.rank = rank;
  const Schedule schedule(p.rows, p.nodes, p.adapters, nullptr, kRowBlock, 1e9, 1);
  const FactorSums<S> sums(schedule, {{nullptr, out, rank}, {nullptr, rank, in}});
  const int64_t I = up(in), O = up(out), r = up(rank);
  const int64_t bound = (6 * I * O + 8 * r * (I + O) + 1000 * (I + O + r) + (1 << 17)) * int64_t(sizeof(T));
  Cutter forward(nullptr), backward(nullptr);
  NallForwardScratch<T>(forward, p, nall_forward_group<T>(p), true);
  NallBackwardScratch<S>(backward, p, nall_backward_group<T>(p), sums, true);
  const std::string name = "scratch of nall " + std::to_string(in) + " " + std::to_string(out) + " " +
                           std::to_string(rank) + " of " + std::to_string(bound) + ": ";
  check::that(int64_t(forward.used()) <= bound, name + std::to_string(forward.used()));
  check::that(int64_t(backward.used()) <= bound, name + std::to_string(backward.used()));
}

template <typename S>
void nsp(int64_t features, int64_t rank, int64_t depth) {
  using T = Compute<S>;
  NspProblem p{};
  std::vector<NspLayer> layers(size_t(depth), NspLayer{});
  std::vector<Output> outputs;
  for (NspLayer& layer : layers) {
    layer.rank = rank;
    outputs.push_back({nullptr, features, rank});
    outputs.push_back({nullptr, rank, features});
  }
  p.rows = 768, p.nodes = p.adapters = 9, p.features = features, p.depth = depth, p.layers = layers.data();
  const Schedule schedule(p.rows, p.nodes, p.adapters, nullptr, kRowBlock, 1e9, 1);
  const FactorSums<S> sums(schedule, outputs);
  const int64_t D = up(features), r = up(rank);
  const int64_t bound = (6 * depth * D * (D + 4 * r) + 1000 * (D + r + depth) + (1 << 17)) * int64_t(sizeof(T));
  Cutter forward(nullptr), backward(nullptr);
  NspForwardScratch<T>(forward, p, nsp_forward_group<T>(p), true);
  NspBackwardScratch<S>(backward, p, nsp_backward_group<T>(p), sums, true);
  const std::string name = "scratch of nsp " + std::to_string(features) + " " + std::to_string(rank) + " " +
                           std::to_string(depth) + " of " + std::to_string(bound) + ": ";
  check::that(int64_t(forward.used()) <= bound, name + std::to_string(forward.used()));
  check::that(int64_t(backward.used()) <= bound, name + std::to_string(backward.used()));
}

}  // namespace

void scratch_is_bounded() {
  for (int64_t rank : {1, 5, 16, 64, 128})
    for (int64_t n : {1, 7, 8, 9, 17, 33, 64, 100, 128, 144, 256, 513}) {
      for (int64_t m : {1, 33, 128, 513}) nall<float>(n, m, rank), nall<double>(n, m, rank), nall<bf16>(n, m, rank);
      for (int64_t depth : {1, 4, 16, 64}) nsp<float>(n, rank, depth), nsp<double>(n, rank, depth);
    }
}

}  // namespace stlora::cpu::STLORA_ISA

int main() {
  stlora::cpu::STLORA_ISA::scratch_is_bounded();
  return check::summary();
}
