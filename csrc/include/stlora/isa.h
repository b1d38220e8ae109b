// The instruction set of the CPU kernels, best first: "avx512", "avx2", "portable".
#pragma once

namespace stlora::cpu {

const char* selected_isa();
bool isa_supported(const char* name);  // built in, and offered by this machine
void select_isa(const char* name);     // throws std::invalid_argument where it is not supported

}  // namespace stlora::cpu
