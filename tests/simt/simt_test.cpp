// What the emulator must notice, each on a small kernel with one mistake, and beside it the kernel without the mistake.
#include <cuda_pipeline.h>
#include <mma.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

using simt::Checked;

namespace {

int failures = 0;

struct Run {
  unsigned threads = 64, blocks = 1;
  std::size_t shared = 4096;
  unsigned resident = 2;
};

// What the kernel is refused with under some of the seeds; empty if under none.
std::string refused(const Run& run, const std::function<void()>& kernel, unsigned seeds = 8) {
  for (unsigned seed = 0; seed < seeds; ++seed) try {
      simt::launch({.seed = seed, .shared_limit = 48 * 1024, .resident = run.resident}, run.blocks, run.threads,
                   run.shared, kernel);
    } catch (const simt::Error& error) {
      return error.what();
    }
  return "";
}

void expect(const char* name, const std::string& message, const std::string& expected) {
  const bool right = expected.empty() ? message.empty() : message.find(expected) != std::string::npos;
  if (right) return;
  ++failures;
  std::printf("%s: got \"%s\", expected \"%s\"\n", name, message.c_str(), expected.c_str());
}

Checked<float> shared() { return static_cast<float*>(simt::shared_memory()); }

void memory() {
  std::vector<float> data(64, 1.0f);
  simt::Allow allow(data.data(), 64 * sizeof(float), "data");
  Checked<float> global = data.data();
  expect("in bounds", refused({}, [&] { global[threadIdx.x] = 2; }), "");
  expect("global out of bounds", refused({}, [&] { global[threadIdx.x + 1] = 2; }),
         "out of bounds: 4 bytes written, 256 bytes into data, which has 256");
  expect("shared out of bounds", refused({.shared = 252}, [&] { shared()[threadIdx.x] = 2; }), "out of bounds");
  expect("uninitialised", refused({}, [&] { global[threadIdx.x] = shared()[threadIdx.x]; }), "nobody has written it");
  expect("too much shared memory", refused({.shared = 48 * 1024 + 1}, [] {}), "49153 bytes asked for, 49152 are there");
  expect("misaligned",
         refused({},
                 [&] {
                   Checked<float> p = reinterpret_cast<float*>(static_cast<char*>(simt::shared_memory()) + 2);
                   p[0] = 1;
                 }),
         "misaligned");
}

void races() {
  const auto neighbour = [](int barriers, unsigned distance) {
    return [=] {
      const unsigned other = threadIdx.x ^ distance;
      shared()[threadIdx.x] = 1;
      if (barriers == 1) __syncthreads();
      if (barriers == 2) __syncwarp();
      float read = shared()[other];
      if (read != 1) throw simt::Error("wrong value");
    };
  };
  expect("barrier between write and read", refused({}, neighbour(1, 33)), "");
  expect("no barrier between write and read", refused({.threads = 32}, neighbour(0, 1)), "shared memory at byte");
  expect("a warp's barrier for neighbours in it", refused({}, neighbour(2, 1)), "");
  expect("a warp's barrier for another warp", refused({}, neighbour(2, 32)), "shared memory at byte");
  expect("write after read",
         refused({},
                 [] {
                   shared()[threadIdx.x] = 1;
                   __syncthreads();
                   const float read = shared()[threadIdx.x ^ 1];
                   shared()[threadIdx.x] = read + 1;
                 }),
         "race");
  expect("write after read, with a barrier",
         refused({},
                 [] {
                   shared()[threadIdx.x] = 1;
                   __syncthreads();
                   const float read = shared()[threadIdx.x ^ 1];
                   __syncthreads();
                   shared()[threadIdx.x] = read + 1;
                 }),
         "");
  expect("write after read, each after a warp's barrier",
         refused({},
                 [] {
                   shared()[threadIdx.x] = 1;
                   __syncwarp();
                   const float read = shared()[threadIdx.x ^ 1];
                   __syncwarp();
                   shared()[threadIdx.x] = shared()[threadIdx.x] + read;
                 }),
         "");
  expect("a shuffle is no barrier",
         refused({},
                 [] {
                   shared()[threadIdx.x] = 1;
                   __shfl_xor_sync(0xffffffffu, 1.0f, 1);
                   if (shared()[threadIdx.x ^ 1] != 1) throw simt::Error("wrong value");
                 }),
         "race");
  expect("write after another warp's read, after a warp's barrier",
         refused({},
                 [] {
                   shared()[threadIdx.x] = 1;
                   __syncthreads();
                   const float read = shared()[threadIdx.x ^ 32];
                   __syncwarp();
                   shared()[threadIdx.x] = read;
                 }),
         "race");
  expect("two writers", refused({}, [] { shared()[threadIdx.x / 2] = 1; }), "race");
}

void divergence() {
  expect("a barrier in a branch",
         refused({},
                 [] {
                   if (threadIdx.x < 32) __syncthreads();
                 }),
         "deadlock");
  expect("two barriers",
         refused({},
                 [] {
                   if (threadIdx.x < 32)
                     __syncthreads();
                   else
                     __syncthreads();
                 }),
         "divergent barriers");
  expect("a shuffle in a branch",
         refused({},
                 [] {
                   if (threadIdx.x % 2) __shfl_xor_sync(0xffffffffu, 1.0f, 1);
                 }),
         "deadlock");
  expect("a shuffle",
         refused({},
                 [] {
                   if (__shfl_xor_sync(0xffffffffu, threadIdx.x, 3) != (threadIdx.x ^ 3))
                     throw simt::Error("wrong lane");
                 }),
         "");
}

void copies() {
  std::vector<float> data(64, 3.0f);
  simt::Allow allow(data.data(), 64 * sizeof(float), "data");
  Checked<const float> global = data.data();
  const auto copy = [=](bool wait, bool barrier) {
    return [=] {
      __pipeline_memcpy_async(shared() + threadIdx.x, global + threadIdx.x, 4);
      __pipeline_commit();
      if (wait) __pipeline_wait_prior(0);
      if (barrier) __syncthreads();
      const float read = shared()[barrier ? threadIdx.x ^ 33 : threadIdx.x];
      __pipeline_wait_prior(0);
      if (read != 3) throw simt::Error("wrong value");
    };
  };
  expect("waited for", refused({}, copy(true, true)), "");
  expect("one's own copy", refused({}, copy(true, false)), "");
  expect("not waited for", refused({}, copy(false, false)), "read before the wait");
  expect("waited for the batch before",
         refused({},
                 [=] {
                   for (int i = 0; i < 2; ++i) {
                     __pipeline_memcpy_async(shared() + (64 * i + threadIdx.x), global + threadIdx.x, 4);
                     __pipeline_commit();
                   }
                   __pipeline_wait_prior(1);
                   const float first = shared()[threadIdx.x], second = shared()[64 + threadIdx.x];
                   __pipeline_wait_prior(0);
                   if (first != second) throw simt::Error("wrong value");
                 }),
         "read before the wait");
  expect("never waited for",
         refused({},
                 [=] {
                   __pipeline_memcpy_async(shared() + threadIdx.x, global + threadIdx.x, 4);
                   __pipeline_commit();
                 }),
         "without waiting");
}

// The last block to arrive adds up what the others left, in order.
void ordered_sum() {
  const unsigned blocks = 6;
  std::vector<float> parts(blocks), sum(1);
  std::vector<unsigned> counter(1);
  simt::Allow a(parts.data(), blocks * 4, "parts"), b(sum.data(), 4, "sum"), c(counter.data(), 4, "counter");
  Checked<float> left = parts.data(), out = sum.data();
  Checked<unsigned> count = counter.data();
  enum Mistake { none, counted_first, no_fence, no_barrier };
  const auto kernel = [=](Mistake mistake) {
    return [=] {
      unsigned arrived = 0;
      if (mistake == counted_first && threadIdx.x == 0) arrived = atomicAdd(count, 1u);
      if (threadIdx.x == 33) {
        left[blockIdx.x] = 1;
        if (mistake != no_fence) __threadfence();
      }
      if (mistake != no_barrier) __syncthreads();
      if (threadIdx.x != 0) return;
      if (mistake != counted_first) arrived = atomicAdd(count, 1u);
      if (arrived + 1 < gridDim.x) return;
      float total = 0;
      for (unsigned i = 0; i < gridDim.x; ++i) total += left[i];
      out[0] = total;
      count[0] = 0;
    };
  };
  for (const auto& [mistake, message] : {std::pair{none, ""},
                                         {counted_first, "race: a block reads"},
                                         {no_fence, "race: a block reads"},
                                         {no_barrier, "race: a block reads"}}) {
    counter[0] = 0;
    expect("an ordered sum", refused({.blocks = blocks, .resident = blocks}, kernel(mistake)), message);
  }
}

// Blocks that wait for others to have been: one at a time, they wait for ever, unless a ticket says who may.
void waiting() {
  std::vector<unsigned> counters(2);
  simt::Allow allow(counters.data(), 8, "counters");
  Checked<unsigned> count = counters.data();
  const auto kernel = [=](bool ticket) {
    return [=] {
      if (threadIdx.x != 0) return;
      const unsigned number = ticket ? atomicAdd(count, 1u) : blockIdx.x;
      if (number > 0)
        while (atomicAdd(count + 1, 0u) < number) continue;
      atomicAdd(count + 1, 1u);
    };
  };
  const Run run{.threads = 32, .blocks = 6, .resident = 2};
  const auto anew = [&](bool ticket) {
    std::string message;
    for (unsigned seed = 0; seed < 8 && message.empty(); ++seed) {
      counters = {0, 0};
      try {
        simt::launch({.seed = seed, .resident = run.resident}, run.blocks, run.threads, 64, kernel(ticket));
      } catch (const simt::Error& error) {
        message = error.what();
      }
    }
    return message;
  };
  expect("waiting by ticket", anew(true), "");
  expect("waiting by block number", anew(false), "deadlock");
}

void fragments() {
  using namespace nvcuda;
  std::vector<float> product(256);
  simt::Allow allow(product.data(), 1024, "product");
  Checked<float> out = product.data();
  const auto kernel = [=](bool barrier) {
    return [=] {
      Checked<float> tile = shared();
      for (unsigned e = threadIdx.x; e < 512; e += 32) tile[e] = e < 256 ? e % 7 : (e - 256) % 5;
      __syncwarp();
      wmma::fragment<wmma::matrix_a, 16, 16, 16, float, wmma::row_major> a;
      wmma::fragment<wmma::matrix_b, 16, 16, 16, float, wmma::col_major> b;
      wmma::fragment<wmma::accumulator, 16, 16, 16, float> c;
      wmma::fill_fragment(c, 1.0f);
      wmma::load_matrix_sync(a, tile, 16);
      wmma::load_matrix_sync(b, tile + 256, 16);
      wmma::mma_sync(c, a, b, c);
      wmma::store_matrix_sync(tile + 512, c, 16, wmma::mem_row_major);
      if (barrier) __syncwarp();
      for (unsigned e = threadIdx.x; e < 256; e += 32) out[e] = static_cast<float>(tile[512 + e]);
    };
  };
  expect("a product", refused({.threads = 32}, kernel(true)), "");
  expect("a product that is read at once", refused({.threads = 32}, kernel(false)), "race");
  refused({.threads = 32}, kernel(true), 1);
  for (unsigned row = 0; row < 16; ++row)
    for (unsigned column = 0; column < 16; ++column) {
      float expected = 1;
      for (unsigned k = 0; k < 16; ++k) expected += float((row * 16 + k) % 7) * float((column * 16 + k) % 5);
      if (product[row * 16 + column] != expected) expect("an element of a product", "wrong", "");
    }
}

void tf32() {
  using namespace nvcuda;
  const auto kernel = [](bool rounded) {
    return [=] {
      Checked<float> tile = shared();
      for (unsigned e = threadIdx.x; e < 256; e += 32) tile[e] = 1.0f + 1.0f / 4096;
      __syncwarp();
      wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> a;
      wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::col_major> b;
      wmma::fragment<wmma::accumulator, 16, 16, 8, float> c;
      wmma::fill_fragment(c, 0.0f);
      wmma::load_matrix_sync(a, tile, 8);
      wmma::load_matrix_sync(b, tile + 128, 8);
      if (rounded)
        for (int i = 0; i < a.num_elements; ++i) {
          a.x[i] = wmma::__float_to_tf32(a.x[i]);
          b.x[i] = wmma::__float_to_tf32(b.x[i]);
        }
      wmma::mma_sync(c, a, b, c);
      if (c.x[0] != 8) throw simt::Error("wrong value");
    };
  };
  expect("a tf32 product", refused({.threads = 32}, kernel(true)), "");
  expect("a tf32 product of floats", refused({.threads = 32}, kernel(false)), "not rounded to tf32");
}

}  // namespace

int main() {
  memory();
  races();
  divergence();
  copies();
  ordered_sum();
  waiting();
  fragments();
  tf32();
  return failures ? 1 : 0;
}
