#include "schedule.h"

#include <stdexcept>
#include <string>

namespace stlora::cpu {

Schedule::Schedule(const NallProblem& p, int64_t row_block, int threads)
    : node_index_(p.node_index),
      rows_(p.rows),
      row_block_(row_block),
      blocks_((p.rows + row_block - 1) / row_block),
      units_(p.nodes * blocks_),
      order_(p.nodes),
      offset_(p.adapters + 1) {
  // A thread that starts for less than this costs more than it brings (about 10 us of arithmetic).
  constexpr double kFlopPerThread = 5e5;
  const double flop = 2.0 * double(p.rows) * double(p.nodes) * double(p.in + p.rank) * double(p.out + p.rank);
  const int64_t useful = 1 + int64_t(flop / kFlopPerThread);
  threads_ = int(useful < threads ? useful : threads);

  // A counting sort of the node slots by adapter; it keeps the order of slots that share one.
  for (int64_t slot = 0; slot < p.nodes; ++slot) {
    const int64_t adapter = adapter_of(slot);
    if (adapter < 0 || adapter >= p.adapters)
      throw std::invalid_argument("node_index: got " + std::to_string(adapter) + " at position " +
                                  std::to_string(slot) + ", expected an adapter in [0, " + std::to_string(p.adapters) +
                                  ")");
    ++offset_[adapter + 1];
  }
  for (int64_t adapter = 0; adapter < p.adapters; ++adapter) offset_[adapter + 1] += offset_[adapter];
  std::vector<int64_t> next(offset_.begin(), offset_.end() - 1);
  for (int64_t slot = 0; slot < p.nodes; ++slot) order_[next[adapter_of(slot)]++] = slot;
}

}  // namespace stlora::cpu
