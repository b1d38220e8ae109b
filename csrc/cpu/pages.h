// Large outputs in huge pages. Fresh memory comes page by page as it is first written, and a fault for every 4 KiB of a
// large output takes as long as computing it; a tall [M, N, D] also has more small pages than the processor keeps
// addresses of.
#pragma once

#include <cstdint>

namespace stlora::cpu {

// Asks for huge pages where the range has whole ones (of 2 MiB) and the system gives them to those who ask. Name only
// memory that will be written entirely: it takes no more of it then. The wish stays with the addresses until the
// allocator gives them back to the system.
void prefer_huge_pages(void* data, int64_t bytes);

}  // namespace stlora::cpu
