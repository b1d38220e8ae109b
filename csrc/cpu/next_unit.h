// What a thread will need after the unit at hand, to be fetched while that computes: strided rows and the factors of
// another adapter come as a surprise to the processor's own prefetching.
#pragma once

#include "schedule.h"
#include "tile.h"

namespace stlora::cpu::STLORA_ISA {

template <typename S>
class NextUnit {
 public:
  // Unit `next` of this thread's run follows unit u; there is none at the end of the run.
  NextUnit(const Schedule& schedule, int thread, int64_t u, int64_t next) : exists_(next < schedule.last(thread)) {
    if (!exists_) return;
    unit_ = schedule.unit(next);
    new_adapter_ = unit_.begin == 0 && unit_.adapter != schedule.unit(u).adapter;
  }

  // Adds the unit's rows of an array, unless they are so narrow that they have come with those of the nodes beside.
  void rows(Prefetch& fetch, const Strided& array, int64_t features) const {
    if (exists_ && array.feature == 1 && !narrow_rows<Compute<S>>(features))
      fetch.add(element<S>(array, unit_.begin, unit_.slot), unit_.end - unit_.begin, array.row * kSize,
                features * kSize);
  }

  // Adds [rows, columns] of the unit's adapter out of an array of them, stride apart, if no unit before it needed that.
  void factors(Prefetch& fetch, const void* array, int64_t stride, int64_t rows, int64_t columns) const {
    if (exists_ && new_adapter_)
      fetch.add(static_cast<const S*>(array) + unit_.adapter * stride, rows, columns * kSize, columns * kSize);
  }

 private:
  static constexpr int64_t kSize = sizeof(S);
  bool exists_, new_adapter_ = false;
  Schedule::Unit unit_{};
};

}  // namespace stlora::cpu::STLORA_ISA
