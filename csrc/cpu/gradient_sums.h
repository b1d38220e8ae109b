// Gradients that several units add up to, summed in a fixed order: no atomics, the same bits from run to run.
//
// Of a factor (dA, dB) each adapter has its own matrix. A thread that has an adapter to itself stores it at once; the
// at most two adapters at the ends of its run, which it may share with other threads, wait in its slots for `finish`.
// Of a parameter all nodes share (dW, db) each thread keeps its own sum for `finish`.
#pragma once

#include <vector>

#include "schedule.h"
#include "scratch.h"
#include "tile.h"

namespace stlora::cpu::STLORA_ISA {

struct Output {  // a gradient wanted by the caller, contiguous; data is null where it is not wanted
  void* data;
  int64_t rows, columns;
};

template <typename S>
class FactorSums {
  using T = Compute<S>;

 public:
  // outputs[k].data is [P, rows, columns].
  FactorSums(const Schedule& schedule, std::vector<Output> outputs)
      : schedule_(schedule), outputs_(std::move(outputs)), held_(size_t(2 * schedule.threads()), Held{kNone}) {}

  std::vector<Matrix<T>> cut(Cutter& cutter) const {  // [2 slots x outputs]
    std::vector<Matrix<T>> slots;
    for (int slot = 0; slot < 2; ++slot)
      for (const Output& o : outputs_) slots.push_back(cutter.matrix<T>(o.rows, o.columns));
    return slots;
  }

  // What one thread found for its segment's adapter: sums[k] for outputs[k].
  void deliver(int thread, const Segment& segment, const std::vector<Matrix<T>>& slots, const Matrix<T>* sums) {
    if (segment.whole) {
      store(segment.adapter, sums);
      return;
    }
    const int slot = held_[size_t(2 * thread)].adapter == kNone ? 0 : 1;
    held_[size_t(2 * thread + slot)].adapter = segment.adapter;
    for (size_t k = 0; k < outputs_.size(); ++k)
      std::memcpy(slots[slot * outputs_.size() + k].data, sums[k].data,
                  sizeof(T) * size_t(outputs_[k].rows * sums[k].ld));
  }

  // After all deliveries. slots_of(t): the slots that `cut` made for thread t.
  template <typename SlotsOf>
  void finish(int thread, SlotsOf&& slots_of) const {
    const int end = 2 * schedule_.threads();
    for (int mine = 2 * thread; mine < 2 * thread + 2; ++mine) {
      const int64_t adapter = held_[size_t(mine)].adapter;
      if (adapter == kNone || held_before(mine)) continue;
      const auto& sums = slots_of(mine / 2);
      const Matrix<T>* sum = &sums[size_t(mine % 2) * outputs_.size()];
      for (int other = mine + 1; other < end; ++other) {
        if (held_[size_t(other)].adapter != adapter) continue;
        const auto& parts = slots_of(other / 2);
        for (size_t k = 0; k < outputs_.size(); ++k)
          add(parts[size_t(other % 2) * outputs_.size() + k], outputs_[k].rows, sum[k]);
      }
      store(adapter, sum);
    }
    zero_unused_adapters(thread);
  }

 private:
  static constexpr int64_t kNone = -1;
  struct Held {  // a type of this namespace: a std::vector<int64_t> compiled here could be linked into baseline code
    int64_t adapter;
  };

  bool held_before(int mine) const {
    for (int earlier = 0; earlier < mine; ++earlier)
      if (held_[size_t(earlier)].adapter == held_[size_t(mine)].adapter) return true;
    return false;
  }

  S* at(size_t k, int64_t adapter) const {
    return static_cast<S*>(outputs_[k].data) + adapter * outputs_[k].rows * outputs_[k].columns;
  }

  void store(int64_t adapter, const Matrix<T>* sums) const {
    for (size_t k = 0; k < outputs_.size(); ++k)
      if (outputs_[k].data) store_matrix(sums[k], outputs_[k].rows, outputs_[k].columns, at(k, adapter));
  }

  void zero_unused_adapters(int thread) const {
    const int threads = schedule_.threads();
    const int64_t adapters = schedule_.adapters();
    for (int64_t adapter = adapters * thread / threads; adapter < adapters * (thread + 1) / threads; ++adapter)
      for (size_t k = 0; k < outputs_.size() && schedule_.rows_of(adapter) == 0; ++k)
        if (outputs_[k].data)
          std::memset(at(k, adapter), 0, sizeof(S) * size_t(outputs_[k].rows * outputs_[k].columns));
  }

  const Schedule& schedule_;
  const std::vector<Output> outputs_;
  std::vector<Held> held_;  // [2 * threads]
};

// One thread's share of an ordered sum over all threads, row by row: part(t) is thread t's matrix.
template <typename S, typename Part>
void sum_over_threads(int thread, int threads, const Output& output, Compute<S>* row, Part&& part) {
  if (!output.data) return;
  for (int64_t i = output.rows * thread / threads; i < output.rows * (thread + 1) / threads; ++i) {
    std::memset(row, 0, sizeof(*row) * size_t(output.columns));
    for (int t = 0; t < threads; ++t) {
      const Compute<S>* theirs = part(t).row(i);
      for (int64_t j = 0; j < output.columns; ++j) row[j] += theirs[j];
    }
    store_row(row, output.columns, static_cast<S*>(output.data) + i * output.columns);
  }
}

}  // namespace stlora::cpu::STLORA_ISA
