#include "stlora/isa.h"

#include <atomic>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace stlora::cpu {
namespace {

struct Isa {
  const char* name;
  Kernels kernels;
  bool (*offered)();  // by this machine
};

#ifdef STLORA_HAVE_AVX512
// OTHERS, but for its kernels of bf16.
template <const auto& DOT, const auto& OTHERS>
const auto& with_bf16_dot() {
  static const auto kernels = [] {
    auto result = OTHERS;
    constexpr int kBf16 = int(DType::bf16);
    result.forward[kBf16] = DOT.forward[kBf16];
    result.backward[kBf16] = DOT.backward[kBf16];
    return result;
  }();
  return kernels;
}

bool avx512_offered() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const Isa kIsas[] = {
#ifdef STLORA_HAVE_AVX512
    {"avx512_bf16",
     {&with_bf16_dot<avx512_bf16::nall_kernels, avx512::nall_kernels>(),
      &with_bf16_dot<avx512_bf16::nsp_kernels, avx512::nsp_kernels>()},
     [] { return avx512_offered() && __builtin_cpu_supports("avx512bf16"); }},
    {"avx512", {&avx512::nall_kernels, &avx512::nsp_kernels}, avx512_offered},
#endif
#ifdef STLORA_HAVE_AVX2
    {"avx2",
     {&avx2::nall_kernels, &avx2::nsp_kernels},
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }},
#endif
    {"portable", {&portable::nall_kernels, &portable::nsp_kernels}, [] { return true; }},
};

const Isa* find(const std::string& name) {
  for (const Isa& isa : kIsas)
    if (name == isa.name && isa.offered()) return &isa;
  return nullptr;
}

const Isa* best() {
  for (const Isa& isa : kIsas)
    if (isa.offered()) return &isa;
  return nullptr;  // not reached: portable is always offered
}

std::atomic<const Isa*> selected{best()};

}  // namespace

const Kernels& kernels() { return selected.load()->kernels; }

const char* selected_isa() { return selected.load()->name; }

bool isa_supported(const char* name) { return find(name) != nullptr; }

void select_isa(const char* name) {
  const Isa* isa = find(name);
  if (!isa) {
    std::string supported;
    for (const Isa& other : kIsas)
      if (other.offered()) supported += (supported.empty() ? "" : ", ") + std::string(other.name);
    throw std::invalid_argument("instruction set: got '" + std::string(name) + "', expected one of " + supported);
  }
  selected = isa;
}

}  // namespace stlora::cpu
