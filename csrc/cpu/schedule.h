// Who computes what: the node slots sorted by adapter, cut into row blocks, dealt to the threads in one contiguous
// run each. A thread meets the slots of an adapter one after another, so that it prepares each adapter once.
//
// Several adapters may be taken side by side, row block by row block: neighbouring nodes stand in the same pages of
// memory, and a whole column of a tall [M, N, D] has more pages than the processor keeps addresses of.
#pragma once

#include <cstdint>
#include <vector>

namespace stlora::cpu {

struct Segment {  // what one thread does of one adapter
  int64_t adapter;
  int64_t first, last;  // units
  bool whole;           // no other thread works on this adapter
};

struct Group {  // adapters that one thread takes side by side
  static constexpr int kMax = 8;
  Segment segments[kMax];  // of as many units each
  int size;

  // Calls f(k, u, next) for unit u of segments[k], to be followed by unit `next` of this group or a later one.
  template <typename F>
  void for_each_unit(F&& f) const {
    const int64_t units = segments[0].last - segments[0].first;
    for (int64_t i = 0; i < units; ++i)
      for (int k = 0; k < size; ++k) {
        const int64_t next = k + 1 < size    ? segments[k + 1].first + i
                             : i + 1 < units ? segments[0].first + i + 1
                                             : segments[size - 1].last;
        f(k, segments[k].first + i, next);
      }
  }
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

  // The unit's node slot, the slot's adapter, and rows [begin, end).
  struct Unit {
    int64_t slot, adapter, begin, end;
  };
  Unit unit(int64_t u) const {
    const int64_t begin = u % blocks_ * row_block_, end = begin + row_block_;
    const int64_t slot = order_[u / blocks_];
    return {slot, adapter_of(slot), begin, end < rows_ ? end : rows_};
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

  // Calls f(Group) for groups of at most so many adapters, in order. What an adapter needs of the cache is bounded by
  // the caller's size; adapters of one row block or of several slots are taken one by one.
  template <typename F>
  void for_each_group(int thread, int64_t size, F&& f) const {
    Group group{{}, 0};
    const auto flush = [&] {
      if (group.size > 0) f(static_cast<const Group&>(group));
      group.size = 0;
    };
    for_each_segment(thread, [&](const Segment& segment) {
      const bool alone = blocks_ == 1 || !segment.whole || rows_of(segment.adapter) != rows_;
      if (alone || group.size >= size || group.size == Group::kMax) flush();
      group.segments[group.size++] = segment;
      if (alone) flush();
    });
    flush();
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
