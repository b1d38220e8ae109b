// Compiled once per instruction set (see CMakeLists.txt).
#include "nall_backward.h"
#include "nall_forward.h"

namespace stlora::cpu::STLORA_ISA {

extern const NallKernels nall_kernels;
const NallKernels nall_kernels = {
    {nall_forward<float>, nall_forward<double>, nall_forward<bf16>, nall_forward<f16>},
    {nall_backward<float>, nall_backward<double>, nall_backward<bf16>, nall_backward<f16>},
};

}  // namespace stlora::cpu::STLORA_ISA
