// CUDA's asynchronous copies for the emulator of simt.h: bytes arrive at the wait, not before.
#pragma once

#include "cuda_runtime.h"

template <class T, class U>
void __pipeline_memcpy_async(simt::Checked<T> to, simt::Checked<U> from, std::size_t bytes) {
  simt::copy_async(to.raw(), from.raw(), bytes);
}

inline void __pipeline_commit() { simt::commit_copies(); }

inline void __pipeline_wait_prior(unsigned prior) { simt::wait_copies(prior); }
