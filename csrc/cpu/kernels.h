// What one instruction set offers, for each storage type; and the choice among the sets.
#pragma once

#include "schedule.h"
#include "stlora/nall.h"
#include "stlora/nsp.h"

namespace stlora::cpu {

struct NallKernels {  // each by DType
  void (*forward[4])(const NallProblem&, const Schedule&, void* y);
  void (*backward[4])(const NallProblem&, const Schedule&, const Strided& grad, const void* y, const NallGradients&);
};

struct NspKernels {
  void (*forward[4])(const NspProblem&, const Schedule&, void* y, void* saved);
  void (*backward[4])(const NspProblem&, const Schedule&, const Strided& grad, const void* saved, void* dh,
                      const NspLayerGradients* layers);
};

struct Kernels {
  const NallKernels* nall;
  const NspKernels* nsp;
};

const Kernels& kernels();  // of the selected instruction set

inline constexpr int64_t kRowBlock = 64;  // rows of a tile: it stays in L1/L2 while every panel of W passes over it

// What a row costs beside its products, in the time of as many flop. Narrow ones cost less, and less is gained by
// dealing them out: the outputs of neighbouring nodes stand in one cache line.
inline double row_flop(int64_t features) { return features < 18 ? 40 + 20 * double(features) : 400; }

// Adapters taken side by side (schedule.h) where each needs so many bytes: they share half of an L2 cache.
inline int64_t group_size(int64_t bytes) {
  const int64_t adapters = (256 << 10) / (bytes + 1);
  return adapters < 1 ? 1 : adapters < Group::kMax ? adapters : Group::kMax;
}

#define STLORA_DECLARE_KERNELS(isa)      \
  namespace isa {                        \
  extern const NallKernels nall_kernels; \
  extern const NspKernels nsp_kernels;   \
  }
STLORA_DECLARE_KERNELS(avx512)
STLORA_DECLARE_KERNELS(avx2)
STLORA_DECLARE_KERNELS(portable)
STLORA_DECLARE_KERNELS(avx512_bf16)  // of bf16 only; the others are those of avx512

}  // namespace stlora::cpu
