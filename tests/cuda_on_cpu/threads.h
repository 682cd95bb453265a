// The threads of a CUDA kernel as coroutines on one CPU thread: all blocks are resident, and which
// thread goes on is drawn at random wherever threads meet. warp.h is what a kernel then includes.
//
// Copies land as late as they may, at the wait for them, or as early, when they are asked for:
// code that reads too soon fails one way, code that overwrites too soon the other.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(threads, blocks)

struct uint4 {
  uint32_t x, y, z, w;
};
struct uint2 {
  uint32_t x, y;
};
struct float4 {
  float x, y, z, w;
};
struct Index {
  unsigned x;
};

inline Index threadIdx, blockIdx, gridDim;

namespace emulated {

struct Copy {
  void* to;
  const void* from;
};

struct Lanes {  // what the lanes of a warp hand over when they act together
  const void* rows[32];
  uint4* matrices[32];
  uint4 a[32], b[32];
  uint32_t metadata[32];
  float* c[32];
};

struct Thread {
  ucontext_t context;
  unsigned index, block;
  std::unique_ptr<char[]> stack;
  std::deque<std::vector<Copy>> groups{1};
  int voted = 0;
};

struct Barrier {
  std::vector<Thread*> waiting;
  int votes = 0;
};

struct Blocks {
  unsigned threads;
  std::vector<std::vector<uint4>> shared;
  std::vector<Barrier> barriers, warps;
  std::vector<Lanes> lanes;
};

inline std::mt19937 random;
inline bool early;  // when copies land
inline std::pair<const char*, const char*> readable[2];
inline std::string failure;
inline ucontext_t scheduler;
inline std::vector<Thread*> ready;
inline Thread* current;
inline Blocks* grid;
inline std::function<void()> body;

inline void expect(bool holds, const char* what) {
  if (!holds && failure.empty()) failure = what;
}

// Returns once `size` threads are here; the last of them first does `together`.
inline void meet(Barrier& barrier, size_t size, int vote, const std::function<void()>& together) {
  barrier.votes |= vote;
  barrier.waiting.push_back(current);
  Thread* self = current;
  if (barrier.waiting.size() == size) {
    together();
    for (Thread* thread : barrier.waiting) thread->voted = barrier.votes;
    ready.insert(ready.end(), barrier.waiting.begin(), barrier.waiting.end());
    barrier.waiting.clear();
    barrier.votes = 0;
  }
  swapcontext(&self->context, &scheduler);
}

inline unsigned warp() { return (current->block * grid->threads + current->index) / 32; }

inline void meet_warp(const std::function<void(Lanes&)>& give,
                      const std::function<void(Lanes&)>& together) {
  Lanes& lanes = grid->lanes[warp()];
  give(lanes);
  meet(grid->warps[warp()], 32, 0, [&] { together(lanes); });
}

inline void enter() {
  body();
  expect(current->groups.back().empty(), "a copy was not committed");
  swapcontext(&current->context, &scheduler);
}

// Runs `kernel` for all threads of all blocks; what went wrong, "" if nothing.
inline std::string run(unsigned blocks, unsigned threads, int shared, unsigned seed,
                       const std::function<void()>& kernel) {
  constexpr size_t STACK = 64 << 10;
  Blocks all{threads, {}, {}, {}, {}};
  all.shared.assign(blocks, std::vector<uint4>(shared / 16, uint4{~0u, ~0u, ~0u, ~0u}));  // NaN
  all.barriers.resize(blocks);
  all.warps.resize(blocks * threads / 32);
  all.lanes.resize(blocks * threads / 32);
  std::vector<Thread> every(blocks * threads);
  grid = &all, body = kernel, gridDim = {blocks}, failure.clear(), ready.clear();
  random.seed(seed);
  for (size_t i = 0; i < every.size(); ++i) {
    Thread& thread = every[i];
    thread.index = i % threads, thread.block = i / threads;
    thread.stack.reset(new char[STACK]);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = STACK;
    makecontext(&thread.context, enter, 0);
    ready.push_back(&thread);
  }
  while (!ready.empty()) {
    std::swap(ready[random() % ready.size()], ready.back());
    current = ready.back();
    ready.pop_back();
    threadIdx = {current->index}, blockIdx = {current->block};
    swapcontext(&scheduler, &current->context);
  }
  for (const auto* barriers : {&all.barriers, &all.warps}) {
    for (const Barrier& barrier : *barriers) {
      expect(barrier.waiting.empty(), "threads wait for others that have gone");
    }
  }
  return failure;
}

}  // namespace emulated
