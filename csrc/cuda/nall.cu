#include <algorithm>
#include <utility>

#include "nall_forward.h"

namespace stlora::cuda {

const char* why_not(const NallProblem& p, const Device& device) {
  if (p.dtype == DType::f64) return "float64 has no CUDA kernel";
  if (p.rank > kMostRank) return "a rank beyond 128 has no CUDA kernel";
  const std::size_t bytes =
      p.dtype == DType::f32 ? forward_layout<float>(p, device).bytes : forward_layout<__half>(p, device).bytes;
  return bytes == 0 ? "the tiles of this many features do not fit shared memory" : nullptr;
}

const char* nall_forward(const NallProblem& p, void* y, const Device& device, void* stream) {
  if (const char* reason = why_not(p, device)) return reason;
  if (p.dtype == DType::f32) return nall_forward_of<float>(p, y, device, stream);
  if (p.dtype == DType::f16) return nall_forward_of<__half>(p, y, device, stream);
  return nall_forward_of<__nv_bfloat16>(p, y, device, stream);
}

}  // namespace stlora::cuda
