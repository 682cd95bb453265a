// Enough of CUDA for a kernel's device code to run on a CPU: a warp is 32 threads of the host, and a
// shuffle is a barrier on both sides of an exchange. Slow, exact, and without a GPU.
#pragma once

#include <strings.h>

#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct Index {
  unsigned x;
};
struct Warp {
  std::barrier<> all{32};
  uint32_t exchanged[32];
};

thread_local Index threadIdx, blockIdx;
thread_local Warp* warp;
Index gridDim;

inline uint32_t __shfl_xor_sync(uint32_t, uint32_t value, int mask) {
  const unsigned lane = threadIdx.x % 32;
  warp->exchanged[lane] = value;
  warp->all.arrive_and_wait();
  const uint32_t other = warp->exchanged[lane ^ mask];
  warp->all.arrive_and_wait();
  return other;
}

inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = a | static_cast<uint64_t>(b) << 32;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= (bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return out;
}

// A vector that is not on its own size would fault on a GPU.
template <typename T>
T __ldcs(const T* from) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(T) != 0) std::abort();
  return *from;
}

inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline int __ffs(uint32_t bits) { return ffs(bits); }

inline long long atomicMin(long long* at, long long value) {
  std::atomic_ref<long long> shared(*at);
  long long known = shared.load();
  while (value < known && !shared.compare_exchange_weak(known, value)) {
  }
  return known;
}

// Run `kernel` on `blocks` blocks of `warps` warps, a warp at a time.
template <typename Kernel>
void launch_on_threads(unsigned blocks, unsigned warps, Kernel kernel) {
  gridDim.x = blocks;
  for (unsigned n = 0; n < blocks * warps; ++n) {
    Warp shared;
    std::vector<std::thread> lanes;
    for (unsigned lane = 0; lane < 32; ++lane) {
      lanes.emplace_back([&, lane] {
        warp = &shared;
        blockIdx.x = n / warps;
        threadIdx.x = n % warps * 32 + lane;
        kernel();
      });
    }
    for (std::thread& lane : lanes) lane.join();
  }
}
