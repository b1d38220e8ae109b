// The kernels that an instruction set with a bf16 dot product changes: its namespace holds nothing else.
#include "nall_backward.h"
#include "nsp_backward.h"

namespace stlora::cpu::STLORA_ISA {

static_assert(kHasDot);

extern const NallKernels nall_kernels;
extern const NspKernels nsp_kernels;
const NallKernels nall_kernels = {{nullptr, nullptr, nall_forward<bf16>, nullptr},
                                  {nullptr, nullptr, nall_backward<bf16>, nullptr}};
const NspKernels nsp_kernels = {{nullptr, nullptr, nsp_forward<bf16>, nullptr},
                                {nullptr, nullptr, nsp_backward<bf16>, nullptr}};

}  // namespace stlora::cpu::STLORA_ISA
