// Compiled once per instruction set (see CMakeLists.txt).
#include "nsp_backward.h"
#include "nsp_forward.h"

namespace stlora::cpu::STLORA_ISA {

extern const NspKernels nsp_kernels;
const NspKernels nsp_kernels = {
    {nsp_forward<float>, nsp_forward<double>, nsp_forward<bf16>, nsp_forward<f16>},
    {nsp_backward<float>, nsp_backward<double>, nsp_backward<bf16>, nsp_backward<f16>},
};

}  // namespace stlora::cpu::STLORA_ISA
