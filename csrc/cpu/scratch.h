// Scratch memory: cut from one slab that the calling thread keeps between calls (page faults on fresh memory would cost
// more than a small layer takes).
#pragma once

#include <cstddef>
#include <cstdint>

#include "gemm.h"
#include "vector.h"

namespace stlora::cpu {

// At least this many bytes, 64-byte aligned, of this thread's slab; the last call's memory is given up.
char* scratch_slab(size_t bytes);

namespace STLORA_ISA {

// Cuts matrices from a slab; on a null slab it only counts, so that the same code says how much is needed.
class Cutter {
 public:
  explicit Cutter(char* slab) : slab_(slab) {}

  template <typename T>
  Matrix<T> matrix(int64_t rows, int64_t columns) {  // row-major
    const int64_t ld = leading_dimension<T>(columns);
    return {take<T>(rows * ld), ld};
  }
  template <typename T>
  Matrix<T> packed(int64_t rows, int64_t columns) {
    const int64_t panels = (columns + kPanel<T> - 1) / kPanel<T>;
    return {take<T>(panels * rows * kPanel<T>), kPanel<T>, rows * kPanel<T>};
  }
  size_t used() const { return used_; }

 private:
  template <typename T>
  T* take(int64_t count) {
    T* data = reinterpret_cast<T*>(slab_ + used_);
    used_ += (size_t(count) * sizeof(T) + 63) / 64 * 64;
    return data;
  }

  char* slab_;
  size_t used_ = 0;
};

}  // namespace STLORA_ISA
}  // namespace stlora::cpu
