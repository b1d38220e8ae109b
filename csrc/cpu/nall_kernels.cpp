// Compiled once per instruction set (see CMakeLists.txt).
#include "nall_kernels.h"

#include "nall_backward.h"
#include "nall_forward.h"

namespace stlora::cpu::STLORA_ISA {

extern const NallKernels nall_kernels;
const NallKernels nall_kernels = {
    {forward<float>, forward<double>, forward<bf16>, forward<f16>},
    {backward<float>, backward<double>, backward<bf16>, backward<f16>},
};

}  // namespace stlora::cpu::STLORA_ISA
