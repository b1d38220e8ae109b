#include "schedule.h"

#include <stdexcept>
#include <string>

namespace stlora::cpu {

Schedule::Schedule(int64_t rows, int64_t nodes, int64_t adapters, const int64_t* node_index, int64_t row_block,
                   double flop, int threads)
    : node_index_(node_index),
      rows_(rows),
      blocks_((rows + row_block - 1) / row_block),
      order_(nodes),
      offset_(adapters + 1) {
  // A thread that starts for less than this costs more than it brings (about 10 us of arithmetic).
  constexpr double kFlopPerThread = 5e5;
  const int64_t useful = 1 + int64_t(flop / kFlopPerThread);
  threads_ = int(useful < threads ? useful : threads);

  // A few units come out even only where the threads divide them.
  while (nodes * blocks_ < 4 * threads_ && nodes * blocks_ % threads_ != 0 && blocks_ < rows) ++blocks_;
  row_block_ = blocks_ > 0 ? (rows + blocks_ - 1) / blocks_ : row_block;
  blocks_ = (rows + row_block_ - 1) / row_block_;  // rounding up may have left some of them nothing
  units_ = nodes * blocks_;

  // A counting sort of the node slots by adapter; it keeps the order of slots that share one.
  for (int64_t slot = 0; slot < nodes; ++slot) {
    const int64_t adapter = adapter_of(slot);
    if (adapter < 0 || adapter >= adapters)
      throw std::invalid_argument("node_index: got " + std::to_string(adapter) + " at position " +
                                  std::to_string(slot) + ", expected an adapter in [0, " + std::to_string(adapters) +
                                  ")");
    ++offset_[adapter + 1];
  }
  for (int64_t adapter = 0; adapter < adapters; ++adapter) offset_[adapter + 1] += offset_[adapter];
  std::vector<int64_t> next(offset_.begin(), offset_.end() - 1);
  for (int64_t slot = 0; slot < nodes; ++slot) order_[next[adapter_of(slot)]++] = slot;
}

}  // namespace stlora::cpu
