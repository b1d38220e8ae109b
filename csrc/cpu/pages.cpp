#include "pages.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace stlora::cpu {

void prefer_huge_pages(void* data, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHuge = uintptr_t(2) << 20;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) / kHuge * kHuge;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + uintptr_t(bytes)) / kHuge * kHuge;
  // A hint: where it is refused, everything works as before.
  if (data && last >= first + 2 * kHuge) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace stlora::cpu
