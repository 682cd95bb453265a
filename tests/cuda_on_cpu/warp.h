// csrc/cuda/warp.h on a CPU. What a warp does together is done when its last lane comes, by the
// layouts of the PTX ISA (warp-level matrix instructions: ldmatrix, mma.sp.m16n8k32 with 16-bit
// values), written down here a second time: nothing is shared with csrc/cuda/layout_2to4.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "threads.h"

struct BFloat16 {};
struct Float16 {};

namespace emulated {

inline void land(const Copy& copy) {
  if (copy.from == nullptr) std::memset(copy.to, 0, 16);
  else std::memcpy(copy.to, copy.from, 16);
}

// Element `half` of the register `word` of an operand.
inline uint16_t element(const uint4& operand, int word, int half) {
  const uint32_t words[4] = {operand.x, operand.y, operand.z, operand.w};
  return static_cast<uint16_t>(words[word] >> (16 * half));
}

}  // namespace emulated

template <typename Half>
float widened(uint16_t bits);
template <>
inline float widened<BFloat16>(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
template <>
inline float widened<Float16>(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float magnitude = exponent == 0 ? std::ldexp(float(fraction), -24)
                          : exponent == 31 ? (fraction ? NAN : INFINITY)
                                           : std::ldexp(float(1024 + fraction), exponent - 25);
  return bits >> 15 ? -magnitude : magnitude;
}

// Of the values that tests make: exact in 16 bits, or finite bfloat16.
template <typename Half>
uint16_t rounded(float value);
template <>
inline uint16_t rounded<BFloat16>(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (value != value) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
template <>
inline uint16_t rounded<Float16>(float value) {
  _Float16 half = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}

inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline void __stcg(float4* to, float4 value) { *to = value; }
inline float4 __ldcg(const float4* from) { return *from; }
inline void __threadfence() {}

inline int __syncthreads_or(int vote) {
  using namespace emulated;
  Thread* self = current;
  meet(grid->barriers[self->block], grid->threads, vote != 0, [] {});
  return self->voted;
}
inline void __syncthreads() { __syncthreads_or(0); }

inline uint4* shared_memory() { return emulated::grid->shared[blockIdx.x].data(); }

inline void copy_async(uint4* to, const void* from, bool valid = true) {
  using namespace emulated;
  const auto& shared = grid->shared[blockIdx.x];
  expect(to >= shared.data() && to < shared.data() + shared.size(), "a copy beyond shared memory");
  const char* begin = static_cast<const char*>(from);
  const auto inside = [&](auto range) {
    return begin >= range.first && begin + 16 <= range.second;
  };
  expect(!valid || inside(readable[0]) || inside(readable[1]), "a copy from beyond W and x");
  expect(reinterpret_cast<uintptr_t>(from) % 16 == 0, "a copy from an address off 16 bytes");
  const Copy copy{to, valid ? from : nullptr};
  if (early) land(copy);
  else current->groups.back().push_back(copy);
}

inline void copy_commit() { emulated::current->groups.emplace_back(); }

inline void copy_wait(int pending) {
  auto& groups = emulated::current->groups;  // the last one is not committed yet
  for (; static_cast<int>(groups.size()) > pending + 1; groups.pop_front()) {
    for (const auto& copy : groups.front()) emulated::land(copy);
  }
}

inline uint4 load_matrices(const uint4* row) {
  using namespace emulated;
  uint4 out;
  const unsigned lane = threadIdx.x % 32;
  const auto give = [&](Lanes& lanes) { lanes.rows[lane] = row, lanes.matrices[lane] = &out; };
  meet_warp(give, [](Lanes& lanes) {
    for (int j = 0; j < 4; ++j) {  // eight rows of a matrix from eight different groups of banks
      unsigned banks = 0;
      for (int r = 0; r < 8; ++r) {
        banks |= 1u << reinterpret_cast<uintptr_t>(lanes.rows[8 * j + r]) / 16 % 8;
      }
      expect(banks == 255, "ldmatrix whose rows share banks");
    }
    for (int to = 0; to < 32; ++to) {
      uint32_t words[4];
      for (int j = 0; j < 4; ++j) {
        const auto* row = static_cast<const char*>(lanes.rows[8 * j + to / 4]);
        std::memcpy(&words[j], row + to % 4 * 4, 4);
      }
      *lanes.matrices[to] = {words[0], words[1], words[2], words[3]};
    }
  });
  return out;
}

template <typename Half, int SELECTOR>
void multiply_sparse(float (&c)[4], uint4 a, uint4 b, uint32_t metadata) {
  using namespace emulated;
  const unsigned lane = threadIdx.x % 32;
  const auto give = [&](Lanes& lanes) {
    lanes.a[lane] = a, lanes.b[lane] = b, lanes.metadata[lane] = metadata, lanes.c[lane] = c;
  };
  meet_warp(give, [](Lanes& lanes) {
    for (int row = 0; row < 16; ++row) {
      for (int j = 0; j < 16; ++j) {  // the 16 of 32 columns that are stored
        const int group = j / 2;
        const uint32_t word = lanes.metadata[row % 8 * 4 + 2 * SELECTOR + group / 4];
        const uint32_t two = word >> (row / 8 * 16 + group % 4 * 4);
        expect((two & 3) < (two >> 2 & 3), "metadata whose positions do not ascend");
        const int k = 4 * group + (two >> (j % 2 * 2) & 3);
        const int from = row % 8 * 4 + j % 8 / 2;
        const float value = widened<Half>(element(lanes.a[from], j / 8 * 2 + row / 8, j % 2));
        for (int n = 0; n < 8; ++n) {
          const uint16_t x = element(lanes.b[n * 4 + k % 8 / 2], k / 8, k % 2);
          lanes.c[row % 8 * 4 + n / 2][row / 8 * 2 + n % 2] += value * widened<Half>(x);
        }
      }
    }
  });
}

template <typename Half>
void multiply_dense(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
  using namespace emulated;
  const unsigned lane = threadIdx.x % 32;
  const auto give = [&](Lanes& lanes) {
    lanes.a[lane] = a, lanes.b[lane] = {b0, b1, 0, 0}, lanes.c[lane] = c;
  };
  meet_warp(give, [](Lanes& lanes) {
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < 16; ++k) {
        const int from = row % 8 * 4 + k % 8 / 2;
        const float value = widened<Half>(element(lanes.a[from], k / 8 * 2 + row / 8, k % 2));
        for (int n = 0; n < 8; ++n) {
          const uint16_t x = element(lanes.b[n * 4 + k % 8 / 2], k / 8, k % 2);
          lanes.c[row % 8 * 4 + n / 2][row / 8 * 2 + n % 2] += value * widened<Half>(x);
        }
      }
    }
  });
}

// Bytes 0 and 1, then 2 and 3, as float16.
inline uint2 widened_fp8(uint32_t four) {
  uint32_t halves[4];
  for (int i = 0; i < 4; ++i) {
    const int bits = four >> (8 * i) & 127, exponent = bits >> 3, fraction = bits & 7;
    const float magnitude =
        exponent == 0 ? std::ldexp(float(fraction), -9) : std::ldexp(float(8 + fraction), exponent - 10);
    halves[i] = rounded<Float16>(four >> (8 * i + 7) & 1 ? -magnitude : magnitude);
  }
  return {halves[0] | halves[1] << 16, halves[2] | halves[3] << 16};
}

inline int load_acquire(const int* address) { return *address; }
inline int add_release(int* address, int value) {
  return std::exchange(*address, *address + value);
}
