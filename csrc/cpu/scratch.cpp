#include <cstddef>
#include <memory>
#include <new>

namespace stlora::cpu {
namespace {

struct Free {
  void operator()(char* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
thread_local std::unique_ptr<char[], Free> slab;
thread_local size_t slab_bytes = 0;

}  // namespace

char* scratch_slab(size_t bytes) {
  if (bytes > slab_bytes) {
    slab.reset();
    slab_bytes = 0;
    slab.reset(static_cast<char*>(::operator new[](bytes, std::align_val_t{64})));
    slab_bytes = bytes;
  }
  return slab.get();
}

}  // namespace stlora::cpu
