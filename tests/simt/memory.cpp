#include "memory.h"

namespace simt {
namespace {

bool ordered(const Moment& before, const Moment& now) {
  if (before.thread == now.thread || before.block_barriers < now.block_barriers) return true;
  return before.warp() == now.warp() && before.warp_barriers < now.warp_barriers;
}

std::string place(std::size_t offset) { return "shared memory at byte " + std::to_string(offset); }

}  // namespace

SharedMemory::SharedMemory(std::size_t bytes)
    : bytes_(bytes + alignment, 0xff),  // NaN in every floating-point type
      granules_((bytes + granule - 1) / granule),
      size_(bytes),
      begin_(bytes_.data() + (alignment - reinterpret_cast<std::uintptr_t>(bytes_.data()) % alignment)) {}

bool SharedMemory::holds(const void* address, std::size_t bytes) const {
  const auto offset = static_cast<const unsigned char*>(address) - begin_;
  return offset >= 0 && static_cast<std::size_t>(offset) + bytes <= size_;
}

template <class F>
void SharedMemory::each(const void* address, std::size_t bytes, F&& f) {
  const std::size_t begin = static_cast<const unsigned char*>(address) - begin_;
  for (std::size_t g = begin / granule; g < (begin + bytes + granule - 1) / granule; ++g) f(granules_[g], g * granule);
}

void SharedMemory::read(const void* address, std::size_t bytes, const Moment& now) {
  each(address, bytes, [&](Granule& g, std::size_t offset) {
    if (g.in_flight) throw Error(place(offset) + " is read before the wait for its asynchronous copy");
    if (!g.written) throw Error(place(offset) + " is read, and nobody has written it");
    if (!ordered(g.writer, now))
      throw Error("race: thread " + std::to_string(now.thread) + " reads " + place(offset) + ", which thread " +
                  std::to_string(g.writer.thread) + " has written since the last barrier");
    const bool in_same_warp = !g.read_by_warps && g.reader.warp() == now.warp();
    const bool same_time = g.read && g.reader.block_barriers == now.block_barriers &&
                           !(in_same_warp && g.reader.warp_barriers < now.warp_barriers);
    g.read_by_many = same_time && (g.read_by_many || g.reader.thread != now.thread);
    g.read_by_warps = same_time && (g.read_by_warps || g.reader.warp() != now.warp());
    g.read = true;
    g.reader = now;
  });
}

void SharedMemory::refuse_races_of_write(const Granule& g, std::size_t offset, const Moment& now) {
  const std::string here = "race: thread " + std::to_string(now.thread) + " writes " + place(offset) + ", which ";
  if ((g.written || g.in_flight) && !ordered(g.writer, now))
    throw Error(here + "thread " + std::to_string(g.writer.thread) + " has written since the last barrier");
  if (!g.read || g.reader.block_barriers < now.block_barriers) return;
  // The last reader's moment is the latest of its warp; other warps need a barrier of the block.
  const bool after_all =
      !g.read_by_warps && g.reader.warp() == now.warp() && g.reader.warp_barriers < now.warp_barriers;
  if (!after_all && (g.read_by_many || g.reader.thread != now.thread))
    throw Error(here + "another thread has read since the last barrier");
}

void SharedMemory::write(const void* address, std::size_t bytes, const Moment& now) {
  each(address, bytes, [&](Granule& g, std::size_t offset) {
    if (g.in_flight) throw Error(place(offset) + " is written while an asynchronous copy is on its way there");
    refuse_races_of_write(g, offset, now);
    g.written = true;
    g.writer = now;
  });
}

void SharedMemory::copy_begins(const void* address, std::size_t bytes, const Moment& now) {
  each(address, bytes, [&](Granule& g, std::size_t offset) {
    refuse_races_of_write(g, offset, now);
    g.in_flight = true;
    g.writer = now;
  });
}

void SharedMemory::copy_lands(const void* address, std::size_t bytes, const Moment& now) {
  each(address, bytes, [&](Granule& g, std::size_t) {
    g.in_flight = false;
    g.written = true;
    g.writer = now;
  });
}

std::list<Region>& regions() {
  static std::list<Region> all;
  return all;
}

void check_global(const void* address, std::size_t bytes, bool write) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (const Region& r : regions())
    if (at >= r.begin && at + bytes <= r.begin + r.bytes) return;
  std::string near = "no memory that the kernel was given";
  for (const Region& r : regions())
    if (at >= r.begin && at < r.begin + r.bytes + 4096)
      near = std::to_string(at - r.begin) + " bytes into " + r.name + ", which has " + std::to_string(r.bytes);
  throw Error("out of bounds: " + std::to_string(bytes) + " bytes " + (write ? "written" : "read") + ", " + near);
}

void GlobalMemory::touch(const void* address, std::size_t bytes, bool write, const Published& mine, const Moment& now) {
  const auto begin = reinterpret_cast<std::uintptr_t>(address) / 2;
  for (std::uintptr_t g = begin; g < begin + (bytes + 1) / 2; ++g) {
    const auto found = writes_.find(g);
    if (found != writes_.end() && found->second.block != &mine) {
      const auto& [block, writer, time] = found->second;
      const bool told = block->told[writer.thread] > time || block->barriers > std::int64_t{writer.block_barriers};
      if (!told || block->fenced[writer.thread] < time)
        throw Error(std::string("race: a block ") + (write ? "writes" : "reads") + " what thread " +
                    std::to_string(writer.thread) + " of another has written, without a fence and an atomic between");
    }
    if (write) writes_[g] = {&mine, now, ++clock_};
  }
}

void GlobalMemory::tell(Published& mine, const Moment& now) {
  mine.told[now.thread] = ++clock_;
  mine.barriers = now.block_barriers;
}

Allow::Allow(const void* begin, std::size_t bytes, std::string name) {
  regions().push_front({reinterpret_cast<std::uintptr_t>(begin), bytes, std::move(name)});
  region_ = &regions().front();
}

Allow::~Allow() {
  regions().remove_if([&](const Region& r) { return &r == region_; });
}

}  // namespace simt
