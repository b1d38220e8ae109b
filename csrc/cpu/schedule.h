// Who computes what: the node slots sorted by adapter, cut into row blocks, dealt to the threads in one contiguous
// run each. A thread meets the slots of an adapter one after another, so that it prepares each adapter once.
#pragma once

#include <cstdint>
#include <vector>

namespace stlora::cpu {

struct Segment {  // what one thread does of one adapter
  int64_t adapter;
  int64_t first, last;  // units
  bool whole;           // no other thread works on this adapter
};

class Schedule {
 public:
  // M rows of N node slots, each of the adapter node_index names (null: its own number) out of so many; blocks of
  // row_block rows; for work of so many flop in all. Throws std::invalid_argument for an adapter out of range.
  Schedule(int64_t rows, int64_t nodes, int64_t adapters, const int64_t* node_index, int64_t row_block, double flop,
           int threads);

  int threads() const { return threads_; }
  int64_t row_block() const { return row_block_; }
  int64_t adapters() const { return int64_t(offset_.size()) - 1; }
  int64_t rows_of(int64_t adapter) const { return (offset_[adapter + 1] - offset_[adapter]) * rows_; }

  // The unit's node slot and rows [begin, end).
  struct Unit {
    int64_t slot, begin, end;
  };
  Unit unit(int64_t u) const {
    const int64_t begin = u % blocks_ * row_block_, end = begin + row_block_;
    return {order_[u / blocks_], begin, end < rows_ ? end : rows_};
  }

  int64_t last(int thread) const { return units_ * (thread + 1) / threads_; }  // the end of this thread's run

  // Calls f(Segment) for every adapter in the run of this thread, in order.
  template <typename F>
  void for_each_segment(int thread, F&& f) const {
    const int64_t end = last(thread);
    for (int64_t u = units_ * thread / threads_; u < end;) {
      const int64_t adapter = adapter_of(order_[u / blocks_]);
      const int64_t group_begin = offset_[adapter] * blocks_, group_end = offset_[adapter + 1] * blocks_;
      const int64_t last = group_end < end ? group_end : end;
      f(Segment{adapter, u, last, u == group_begin && last == group_end});
      u = last;
    }
  }

 private:
  int64_t adapter_of(int64_t slot) const { return node_index_ ? node_index_[slot] : slot; }

  const int64_t* node_index_;
  int64_t rows_, row_block_, blocks_, units_;
  int threads_;
  std::vector<int64_t> order_;   // [N] node slots, those of one adapter side by side
  std::vector<int64_t> offset_;  // [P + 1] where in order_ an adapter's slots begin
};

}  // namespace stlora::cpu
