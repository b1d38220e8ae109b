#include "pages.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace stlora::cpu {

void prefer_huge_pages(void* data, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHuge = uintptr_t(2) << 20;
  constexpr int64_t kAlwaysFresh = int64_t(32) << 20;  // glibc's malloc keeps smaller blocks for the next call
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) / kHuge * kHuge;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + uintptr_t(bytes)) / kHuge * kHuge;
  // A hint: where it is refused, everything works as before.
  if (data && bytes >= kAlwaysFresh) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace stlora::cpu
