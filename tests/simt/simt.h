// A GPU of the mind: runs CUDA kernels on the CPU, one fiber per thread, in an order that a seed decides.
//
// Kernels are compiled by the host compiler against include/, which gives CUDA's names to what is declared here. Memory
// that kernels reach through Checked pointers is watched: addresses outside of what they were given, shared memory that
// nobody has written, accesses of two threads that no barrier orders, asynchronous copies that nobody waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace simt {

constexpr unsigned warp_size = 32;

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct Options {
  unsigned seed = 0;                     // of the schedule
  std::size_t shared_limit = 99 * 1024;  // bytes a block may have
  unsigned resident = 2;                 // blocks that run side by side
};

// Runs every thread of the grid. Throws Error for the first thing that no GPU promises to survive.
void launch(const Options& options, Dim3 grid, Dim3 block, std::size_t shared_bytes,
            const std::function<void()>& kernel);

// What has been launched, and the bytes of global memory that it has asked for. For whoever looks to clear.
struct Launched {
  unsigned blocks, threads;
  std::size_t shared_bytes;
  std::uint64_t read = 0, written = 0;
};
std::vector<Launched>& launches();

// Global memory that kernels may touch while this lives.
class Allow {
 public:
  Allow(const void* begin, std::size_t bytes, std::string name);
  ~Allow();
  Allow(const Allow&) = delete;
  Allow& operator=(const Allow&) = delete;

 private:
  const void* region_;
};

// ------------------------------------------------------------------ what a thread asks

const Dim3& thread_index();
const Dim3& block_index();
const Dim3& block_size();
const Dim3& grid_size();
void* shared_memory();  // of the block, full of NaN at first

void block_barrier(const char* file, int line);
// All lanes of the warp meet; returns what each has handed in, which stays theirs until they meet again.
const void* const* warp_exchange(const void* mine, const char* file, int line);
void warp_barrier(const char* file, int line);
void warp_converges(const char* file, int line);  // as shuffles and matrix operations do: it orders no memory
unsigned lane();
void maybe_switch();  // lets another thread run, if chance says so

void check(const void* address, std::size_t bytes, bool write);
void fence();
void atomic(const void* address, std::size_t bytes);  // on global memory; it tells of what a fence has made visible
void copy_async(void* shared, const void* global, std::size_t bytes);
void commit_copies();
void wait_copies(unsigned prior);

// ------------------------------------------------------------------ pointers that are watched

template <class T>
class Reference {
 public:
  explicit Reference(T* p) : p_(p) {}
  operator std::remove_const_t<T>() const {  // NOLINT: as a T& would
    check(p_, sizeof(T), false);
    return *p_;
  }
  const Reference& operator=(const T& value) const {
    check(p_, sizeof(T), true);
    *p_ = value;
    return *this;
  }
  const Reference& operator=(const Reference& other) const { return *this = static_cast<T>(other); }
  const Reference& operator+=(const T& value) const { return *this = static_cast<T>(*this) + value; }

 private:
  T* p_;
};

template <class T>
class Checked {
 public:
  Checked() = default;
  Checked(T* p) : p_(p) {}  // NOLINT: a pointer is one
  template <class U>
    requires std::is_same_v<const U, T>
  Checked(Checked<U> other) : p_(other.raw()) {}  // NOLINT
  Reference<T> operator*() const { return Reference<T>(p_); }
  Reference<T> operator[](std::ptrdiff_t i) const { return Reference<T>(p_ + i); }
  Checked operator+(std::ptrdiff_t i) const { return p_ + i; }
  Checked& operator+=(std::ptrdiff_t i) {
    p_ += i;
    return *this;
  }
  explicit operator bool() const { return p_ != nullptr; }
  T* raw() const { return p_; }

 private:
  T* p_ = nullptr;
};

}  // namespace simt
