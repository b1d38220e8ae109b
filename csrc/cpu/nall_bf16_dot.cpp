// The one kernel that an instruction set with a bf16 dot product changes: its namespace holds nothing else.
#include "nall_forward.h"

namespace stlora::cpu::STLORA_ISA {

static_assert(kHasDot);

void nall_forward_bf16(const NallProblem& problem, const Schedule& schedule, void* y) {
  nall_forward<bf16>(problem, schedule, y);
}

}  // namespace stlora::cpu::STLORA_ISA
