// What one instruction set offers for the NALL; one table per set, all four storage types.
#pragma once

#include "schedule.h"
#include "stlora/nall.h"

namespace stlora::cpu {

struct NallKernels {
  using Forward = void (*)(const NallProblem&, const Schedule&, void* y);
  using Backward = void (*)(const NallProblem&, const Schedule&, const Strided& grad, const void* y,
                            const NallGradients&);
  Forward forward[4];  // by DType
  Backward backward[4];
};

inline constexpr int64_t kRowBlock = 64;  // rows of a tile: it stays in L1/L2 while every panel of W passes over it

#ifdef STLORA_HAVE_AVX512
namespace avx512 {
extern const NallKernels nall_kernels;
}
#endif
#ifdef STLORA_HAVE_AVX2
namespace avx2 {
extern const NallKernels nall_kernels;
}
#endif
namespace portable {
extern const NallKernels nall_kernels;
}

}  // namespace stlora::cpu
