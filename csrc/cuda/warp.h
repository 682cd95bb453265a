// The instructions that CUDA C++ has no name for. A test puts a CPU's rendering of this file in its
// place, so kernels that use it say nothing else that only a GPU understands.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

struct BFloat16 {};
struct Float16 {};

template <typename Half>
__device__ __forceinline__ uint16_t rounded(float value);
template <>
__device__ __forceinline__ uint16_t rounded<BFloat16>(float value) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
template <>
__device__ __forceinline__ uint16_t rounded<Float16>(float value) {
  return __half_as_ushort(__float2half_rn(value));
}

template <typename Half>
__device__ __forceinline__ float widened(uint16_t bits);
template <>
__device__ __forceinline__ float widened<BFloat16>(uint16_t bits) {
  return __bfloat162float(__ushort_as_bfloat16(bits));
}
template <>
__device__ __forceinline__ float widened<Float16>(uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}

__device__ __forceinline__ uint4* shared_memory() {
  extern __shared__ __align__(128) uint4 dynamic[];
  return dynamic;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Sixteen bytes from global to shared memory, past L1; zeros where `valid` is not.
__device__ __forceinline__ void copy_async(uint4* to, const void* from, bool valid = true) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)),
               "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void copy_commit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}

// Waits until at most `pending`, 0 to 3, of this thread's groups of copies are under way.
__device__ __forceinline__ void copy_wait(int pending) {
  if (pending == 0) asm volatile("cp.async.wait_group 0;\n" ::: "memory");
  else if (pending == 1) asm volatile("cp.async.wait_group 1;\n" ::: "memory");
  else if (pending == 2) asm volatile("cp.async.wait_group 2;\n" ::: "memory");
  else asm volatile("cp.async.wait_group 3;\n" ::: "memory");
}

// Four 8 x 8 matrices of 16-bit values, whose row r of matrix j is at the address of lane 8 j + r.
__device__ __forceinline__ uint4 load_matrices(const uint4* row) {
  uint4 out;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
               : "r"(shared_address(row))
               : "memory");
  return out;
}

#define RAC_MMA_SP(type, selector)                                                            \
  asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32." type "." type     \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9, %10, %11}, "                  \
               "{%0, %1, %2, %3}, %12, " selector ";\n"                                        \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                \
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y), "r"(b.z), "r"(b.w), \
                 "r"(metadata))

// c += A B, A 2:4 sparse [16, 32], B [32, 8]; lanes 2 SELECTOR and 2 SELECTOR + 1 of every four
// give the metadata.
template <typename Half, int SELECTOR>
__device__ __forceinline__ void multiply_sparse(float (&c)[4], uint4 a, uint4 b,
                                                uint32_t metadata) {
  constexpr bool bfloat = std::is_same_v<Half, BFloat16>;
  if constexpr (bfloat && SELECTOR == 0) RAC_MMA_SP("bf16", "0x0");
  else if constexpr (bfloat) RAC_MMA_SP("bf16", "0x1");
  else if constexpr (SELECTOR == 0) RAC_MMA_SP("f16", "0x0");
  else RAC_MMA_SP("f16", "0x1");
}

#undef RAC_MMA_SP

// Four values of fp8 (e4m3) as float16: bytes 0 and 1, bytes 2 and 3.
__device__ __forceinline__ uint2 widened_fp8(uint32_t four) {
#if __CUDA_ARCH__ >= 890
  uint2 out;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, low;\ncvt.rn.f16x2.e4m3x2 %1, high;\n}\n"
      : "=r"(out.x), "=r"(out.y)
      : "r"(four));
  return out;
#else
  // Exponent and fraction at their places in a float16, whose exponent counts from 8 lower.
  const auto scaled = [](uint32_t upper) {
    const uint32_t bits = (upper & 0x80008000) | (upper >> 1 & 0x3f803f80);
    const __half2 value = __hmul2(reinterpret_cast<const __half2&>(bits), __float2half2_rn(256));
    return reinterpret_cast<const uint32_t&>(value);
  };
  return {scaled(__byte_perm(four, 0, 0x1404)), scaled(__byte_perm(four, 0, 0x3424))};
#endif
}

#define RAC_MMA(type)                                                                          \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                           \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"         \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                \
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1))

// c += A B, A [16, 16], B [16, 8].
template <typename Half>
__device__ __forceinline__ void multiply_dense(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<Half, BFloat16>) RAC_MMA("bf16");
  else RAC_MMA("f16");
}

#undef RAC_MMA

// A word that another block writes, and what that block wrote before it.
__device__ __forceinline__ int load_acquire(const int* address) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];\n" : "=r"(value) : "l"(address) : "memory");
  return value;
}

// Adds and returns what was there: what this block wrote before is seen by who sees the sum.
__device__ __forceinline__ int add_release(int* address, int value) {
  int before;
  asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], %2;\n"
               : "=r"(before)
               : "l"(address), "r"(value)
               : "memory");
  return before;
}
