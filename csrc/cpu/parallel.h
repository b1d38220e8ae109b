// One parallel region on torch's OpenMP threads: `work(t)` for every t in [0, threads), and when all are done,
// `finish(t)` for every t. The runtime may grant fewer threads than asked for (nested regions, limits): each then takes
// several t, and the results stay the same bits.
//
// The region is opened by calling the runtime that is in the process, libgomp or LLVM's, through the entry points both
// have; a compiler's -fopenmp would tie the build to that compiler's own runtime.
#pragma once

extern "C" {
void GOMP_parallel(void (*function)(void*), void* data, unsigned threads, unsigned flags);
void GOMP_barrier();
int omp_get_num_threads();
int omp_get_thread_num();
}

namespace stlora::cpu::STLORA_ISA {

template <typename Work, typename Finish>
void parallel(int threads, Work&& work, Finish&& finish) {
  if (threads == 1) {  // no region: a forked child, whose pool is gone, must be able to run this
    work(0);
    finish(0);
    return;
  }
  struct Region {
    int threads;
    Work& work;
    Finish& finish;
    static void run(void* data) {
      const Region& region = *static_cast<Region*>(data);
      const int granted = omp_get_num_threads();
      for (int t = omp_get_thread_num(); t < region.threads; t += granted) region.work(t);
      GOMP_barrier();
      for (int t = omp_get_thread_num(); t < region.threads; t += granted) region.finish(t);
    }
  } region{threads, work, finish};
  GOMP_parallel(&Region::run, &region, unsigned(threads), 0);
}

template <typename Work>
void parallel(int threads, Work&& work) {
  parallel(threads, work, [](int) {});
}

}  // namespace stlora::cpu::STLORA_ISA
