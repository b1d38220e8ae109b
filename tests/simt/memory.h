// What is known of every two bytes of a block's shared memory: who wrote and read them last, and when.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>
#include <vector>

#include "simt.h"

namespace simt {

// When a thread does something: how many barriers its block and its warp have passed.
struct Moment {
  unsigned thread = 0, block_barriers = 0, warp_barriers = 0;
  unsigned warp() const { return thread / warp_size; }
};

class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes);
  void* begin() { return begin_; }
  bool holds(const void* address, std::size_t bytes) const;
  void read(const void* address, std::size_t bytes, const Moment& now);
  void write(const void* address, std::size_t bytes, const Moment& now);
  void copy_begins(const void* address, std::size_t bytes, const Moment& now);
  void copy_lands(const void* address, std::size_t bytes, const Moment& now);

 private:
  static constexpr std::size_t granule = 2, alignment = 128;
  struct Granule {
    bool written = false, in_flight = false, read = false;
    bool read_by_many = false, read_by_warps = false;  // by threads, and by warps, other than the last reader's
    Moment writer, reader;
  };
  template <class F>
  void each(const void* address, std::size_t bytes, F&& f);
  void refuse_races_of_write(const Granule& g, std::size_t offset, const Moment& now);
  std::vector<unsigned char> bytes_;
  std::vector<Granule> granules_;
  std::size_t size_;
  unsigned char* begin_;
};

// Global memory that kernels may touch. Regions may overlap.
struct Region {
  std::uintptr_t begin;
  std::size_t bytes;
  std::string name;
};
std::list<Region>& regions();
void check_global(const void* address, std::size_t bytes, bool write);

// What a block has done so that other blocks may read what it wrote: when its threads last passed a fence, and last
// told others by an atomic, and how many barriers the block had passed by then.
struct Published {
  std::vector<std::uint64_t> fenced = std::vector<std::uint64_t>(1024), told = std::vector<std::uint64_t>(1024);
  std::int64_t barriers = -1;
};

// Who wrote global memory, for races between blocks of one launch.
class GlobalMemory {
 public:
  void touch(const void* address, std::size_t bytes, bool write, const Published& mine, const Moment& now);
  void fence(Published& mine, const Moment& now) { mine.fenced[now.thread] = ++clock_; }
  void tell(Published& mine, const Moment& now);

 private:
  struct Write {
    const Published* block;
    Moment writer;
    std::uint64_t time;
  };
  std::unordered_map<std::uintptr_t, Write> writes_;  // by every two bytes
  std::uint64_t clock_ = 0;
};

}  // namespace simt
