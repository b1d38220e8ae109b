// Fibers and who runs next.
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#include "memory.h"
#include "simt.h"

namespace simt {
namespace {

struct Block;

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
};

enum class State { runnable, at_block_barrier, at_warp_barrier, done };

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Block* block;
  Dim3 index;
  unsigned number, warp_barriers = 0;
  State state = State::runnable;
  std::string waits_at;
  const void* handed_in = nullptr;
  bool orders_memory = false;                // does the barrier that it waits at?
  std::vector<std::vector<Copy>> copies{1};  // committed batches, and the one being filled

  Moment now() const;
};

struct Block {
  Dim3 index;
  SharedMemory shared;
  Published& published;
  unsigned barriers = 0, live;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<std::vector<const void*>> handed_in;  // by warp

  Block(Dim3 index, std::size_t shared_bytes, Published& published)
      : index(index), shared(shared_bytes), published(published) {}
};

Moment Thread::now() const { return {number, block->barriers, warp_barriers}; }

constexpr std::size_t stack_bytes = 128 * 1024;

struct Machine {
  Options options;
  Dim3 grid, block;
  std::size_t shared_bytes;
  const std::function<void()>* kernel;
  std::mt19937 random{options.seed};
  ucontext_t scheduler{};
  Thread* running = nullptr;
  std::exception_ptr error = nullptr;
  unsigned long asked = 0;  // atomics in a row while nothing else has happened
  std::vector<std::unique_ptr<Block>> resident = {};
  std::vector<std::unique_ptr<char[]>> stacks = {};
  GlobalMemory global = {};
  std::list<Published> published = {};  // by each block, also when it has finished

  void begin(Dim3 index);
  void run();
  void release();
  [[noreturn]] void stuck();
};

Machine* machine = nullptr;

void yield() { swapcontext(&machine->running->context, &machine->scheduler); }

void trampoline() {
  try {
    (*machine->kernel)();
    for (const auto& batch : machine->running->copies)
      if (!batch.empty()) throw Error("a thread leaves the kernel without waiting for its asynchronous copies");
  } catch (...) {
    machine->error = std::current_exception();
  }
  machine->running->state = State::done;
  yield();
}

void start(Thread& t) {
  getcontext(&t.context);
  t.context.uc_stack.ss_sp = t.stack.get();
  t.context.uc_stack.ss_size = stack_bytes;
  t.context.uc_link = nullptr;
  makecontext(&t.context, trampoline, 0);
}

void Machine::begin(Dim3 index) {
  auto b = std::make_unique<Block>(index, shared_bytes, published.emplace_back());
  b->live = block.x * block.y * block.z;
  b->handed_in.resize((b->live + warp_size - 1) / warp_size, std::vector<const void*>(warp_size));
  for (unsigned i = 0; i < b->live; ++i) {
    auto t = std::make_unique<Thread>();
    t->block = b.get();
    t->number = i;
    t->index = Dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
    if (stacks.empty()) stacks.push_back(std::make_unique<char[]>(stack_bytes));
    t->stack = std::move(stacks.back());
    stacks.pop_back();
    start(*t);
    b->threads.push_back(std::move(t));
  }
  resident.push_back(std::move(b));
}

// Opens the barriers at which everyone has arrived.
void Machine::release() {
  for (auto& b : resident) {
    unsigned live = 0, waiting = 0;
    for (auto& t : b->threads) {
      live += t->state != State::done;
      waiting += t->state == State::at_block_barrier;
    }
    if (live > 0 && waiting == live) {
      if (live < b->threads.size()) stuck();
      for (auto& t : b->threads) {
        if (t->waits_at != b->threads[0]->waits_at)
          throw Error("divergent barriers: thread 0 waits at " + b->threads[0]->waits_at + ", thread " +
                      std::to_string(t->number) + " at " + t->waits_at);
        t->state = State::runnable;
      }
      ++b->barriers;
    }
    for (std::size_t first = 0; first < b->threads.size(); first += warp_size) {
      const std::size_t end = std::min(first + warp_size, b->threads.size());
      bool all = true;
      for (std::size_t i = first; i < end; ++i) all &= b->threads[i]->state == State::at_warp_barrier;
      if (!all) continue;
      for (std::size_t i = first; i < end; ++i) {
        Thread& t = *b->threads[i];
        if (t.waits_at != b->threads[first]->waits_at)
          throw Error("divergent warp: lane 0 waits at " + b->threads[first]->waits_at + ", lane " +
                      std::to_string(i - first) + " at " + t.waits_at);
        b->handed_in[first / warp_size][i - first] = t.handed_in;
        t.state = State::runnable;
        t.warp_barriers += t.orders_memory;
      }
    }
  }
}

void Machine::stuck() {
  std::string who;
  for (auto& b : resident)
    for (auto& t : b->threads)
      if (t->state != State::runnable && t->state != State::done && who.size() < 300)
        who += " thread " + std::to_string(t->number) + " at " + t->waits_at + ";";
  throw Error("deadlock: others have left the kernel or wait elsewhere, and here wait" + who);
}

void Machine::run() {
  const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
  std::size_t begun = 0, finished = 0;
  std::vector<std::size_t> order(blocks);  // no order is promised
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<Thread*> runnable;
  while (finished < blocks) {
    while (begun < blocks && resident.size() < std::max(1u, options.resident)) {
      const std::size_t next = order[begun++];
      begin(Dim3(next % grid.x, next / grid.x % grid.y, next / grid.x / grid.y));
    }
    release();
    runnable.clear();
    for (auto& b : resident)
      for (auto& t : b->threads)
        if (t->state == State::runnable) runnable.push_back(t.get());
    if (runnable.empty()) stuck();
    // A few turns before looking again at who waits: looking costs more than running.
    for (int turn = 0; turn < 64 && !runnable.empty(); ++turn) {
      const std::size_t pick = random() % runnable.size();
      running = runnable[pick];
      swapcontext(&scheduler, &running->context);
      if (error) std::rethrow_exception(error);
      if (running->state != State::runnable) {
        runnable[pick] = runnable.back();
        runnable.pop_back();
      }
    }
    for (std::size_t i = 0; i < resident.size();) {
      bool done = true;
      for (auto& t : resident[i]->threads) done &= t->state == State::done;
      if (!done) {
        ++i;
        continue;
      }
      for (auto& t : resident[i]->threads) stacks.push_back(std::move(t->stack));
      resident.erase(resident.begin() + static_cast<std::ptrdiff_t>(i));
      ++finished;
    }
  }
}

void wait(State state, const char* file, int line) {
  Thread& t = *machine->running;
  t.state = state;
  t.waits_at = std::string(file) + ":" + std::to_string(line);
  yield();
}

}  // namespace

void launch(const Options& options, Dim3 grid, Dim3 block, std::size_t shared_bytes,
            const std::function<void()>& kernel) {
  if (shared_bytes > options.shared_limit)
    throw Error("shared memory: " + std::to_string(shared_bytes) + " bytes asked for, " +
                std::to_string(options.shared_limit) + " are there");
  if (block.x * block.y * block.z > 1024 || block.x * block.y * block.z % warp_size)
    throw Error("threads: " + std::to_string(block.x * block.y * block.z) + ", expected whole warps, 1024 at most");
  static std::mutex one_at_a_time;
  const std::scoped_lock lock(one_at_a_time);
  launches().push_back({grid.x * grid.y * grid.z, block.x * block.y * block.z, shared_bytes});
  Machine m{.options = options, .grid = grid, .block = block, .shared_bytes = shared_bytes, .kernel = &kernel};
  machine = &m;
  struct Leave {
    ~Leave() { machine = nullptr; }
  } leave;
  m.run();
}

std::vector<Launched>& launches() {
  static std::vector<Launched> all;
  return all;
}

const Dim3& thread_index() { return machine->running->index; }
const Dim3& block_index() { return machine->running->block->index; }
const Dim3& block_size() { return machine->block; }
const Dim3& grid_size() { return machine->grid; }
void* shared_memory() { return machine->running->block->shared.begin(); }
unsigned lane() { return machine->running->number % warp_size; }

void block_barrier(const char* file, int line) { wait(State::at_block_barrier, file, line); }

void warp_barrier(const char* file, int line) {
  machine->running->orders_memory = true;
  wait(State::at_warp_barrier, file, line);
}

void warp_converges(const char* file, int line) {
  machine->running->orders_memory = false;
  wait(State::at_warp_barrier, file, line);
}

const void* const* warp_exchange(const void* mine, const char* file, int line) {
  Thread& t = *machine->running;
  t.handed_in = mine;
  warp_converges(file, line);
  return t.block->handed_in[t.number / warp_size].data();
}

void maybe_switch() {
  if (machine->random() % 32 == 0) yield();
}

void fence() {
  Thread& t = *machine->running;
  machine->global.fence(t.block->published, t.now());
  yield();
}

void atomic(const void* address, std::size_t bytes) {
  yield();  // the others first: what an atomic tells of is better there
  if (++machine->asked > 200'000)
    throw Error("deadlock: threads ask by atomics again and again, and nothing else happens");
  Thread& t = *machine->running;
  check_global(address, bytes, true);
  machine->global.tell(t.block->published, t.now());
}

void check(const void* address, std::size_t bytes, bool write) {
  maybe_switch();
  machine->asked = 0;
  if (reinterpret_cast<std::uintptr_t>(address) % bytes)
    throw Error("misaligned: an access of " + std::to_string(bytes) + " bytes");
  Thread& t = *machine->running;
  SharedMemory& shared = t.block->shared;
  if (!shared.holds(address, bytes)) {
    check_global(address, bytes, write);
    machine->global.touch(address, bytes, write, t.block->published, t.now());
    (write ? launches().back().written : launches().back().read) += bytes;
  } else if (write) {
    shared.write(address, bytes, t.now());
  } else {
    shared.read(address, bytes, t.now());
  }
}

void copy_async(void* to, const void* from, std::size_t bytes) {
  maybe_switch();
  machine->asked = 0;
  Thread& t = *machine->running;
  if (bytes != 4 && bytes != 8 && bytes != 16)
    throw Error("an asynchronous copy of " + std::to_string(bytes) + " bytes, expected 4, 8 or 16");
  if (reinterpret_cast<std::uintptr_t>(to) % bytes || reinterpret_cast<std::uintptr_t>(from) % bytes)
    throw Error("misaligned: an asynchronous copy of " + std::to_string(bytes) + " bytes");
  if (!t.block->shared.holds(to, bytes))
    throw Error("out of bounds: an asynchronous copy to what is not shared memory");
  check_global(from, bytes, false);
  machine->global.touch(from, bytes, false, t.block->published, t.now());
  launches().back().read += bytes;
  t.block->shared.copy_begins(to, bytes, t.now());
  t.copies.back().push_back({to, from, bytes});
}

void commit_copies() { machine->running->copies.emplace_back(); }

void wait_copies(unsigned prior) {
  Thread& t = *machine->running;
  while (t.copies.size() > prior + 1) {  // the last is not committed yet
    for (const Copy& c : t.copies.front()) {
      std::memcpy(c.to, c.from, c.bytes);
      t.block->shared.copy_lands(c.to, c.bytes, t.now());
    }
    t.copies.erase(t.copies.begin());
  }
}

}  // namespace simt
