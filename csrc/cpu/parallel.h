// One parallel region on torch's OpenMP threads: `work(t)` for every t in [0, threads), and when all are done,
// `finish(t)` for every t. The runtime may grant fewer threads than asked for (nested regions, limits): each then takes
// several t, and the results stay the same bits.
#pragma once

#include <omp.h>

namespace stlora::cpu::STLORA_ISA {

template <typename Work, typename Finish>
void parallel(int threads, Work&& work, Finish&& finish) {
  if (threads == 1) {  // no region: a forked child, whose pool is gone, must be able to run this
    work(0);
    finish(0);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int granted = omp_get_num_threads();
    for (int t = omp_get_thread_num(); t < threads; t += granted) work(t);
#pragma omp barrier
    for (int t = omp_get_thread_num(); t < threads; t += granted) finish(t);
  }
}

template <typename Work>
void parallel(int threads, Work&& work) {
  parallel(threads, work, [](int) {});
}

}  // namespace stlora::cpu::STLORA_ISA
