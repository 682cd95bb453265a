// Which instructions the kernels use, decided when the module runs, not when it is built.
//
// A kernel is written once, as an RAC_INLINE template on vectors of L lanes (lanes.h), and compiled
// three times by calling it from functions with a target attribute. OpenMP moves the body of a
// parallel region into a function without that attribute, so a region contains nothing but a call
// through the chosen pointer, and work is shared among threads inside the kernel. What comes after
// AVX-512 is AVX-512 to all but a few, which ask for it (current_isa).
#pragma once

#include <string>

#define RAC_INLINE static inline __attribute__((always_inline))

// Linux alone grants AMX (isa.cpp); GCC 11 is the first to have it.
#if defined(__x86_64__) && defined(__linux__) && defined(__has_include)
#if __has_include(<amxbf16intrin.h>) || __has_include(<amxintrin.h>)
#define RAC_HAS_AMX
#endif
#endif
#if defined(RAC_HAS_AMX)
#define RAC_AMX \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-bf16")))
#endif

// Products of bf16 pairs and values spread out by masks; GCC 10 is the first to know both.
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 10
#define RAC_HAS_BF16
#define RAC_VBMI2 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt,bmi2")))
#endif

#if defined(__x86_64__)
#define RAC_AVX2 __attribute__((target("avx2,fma")))
#define RAC_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define RAC_AVX2
#define RAC_AVX512
#endif

// AVX512_BF16: with VBMI2, too, as Zen 4 and Sapphire Rapids have; AMX: with tiles of bf16 as well.
enum class Isa { BASELINE, AVX2, AVX512, AVX512_BF16, AMX };

// The best the CPU has, unless use_isa chose another.
Isa current_isa();

// Use a named instruction set from now on ("amx", "avx512_bf16", "avx512", "avx2", "baseline", "best");
// throws std::invalid_argument when the CPU does not have it. For tests: results do not depend on it,
// but for the last bits of hessian_accumulate, whose products and sums the baseline does not fuse and
// AMX sums in another order, and of linear, which bf16 pairs and tiles sum in others.
void use_isa(const std::string& name);

std::string isa_name();

template <typename Function>
Function pick(Function baseline, Function avx2, Function avx512) {
  switch (current_isa()) {
    case Isa::AMX:
    case Isa::AVX512_BF16:
    case Isa::AVX512: return avx512;
    case Isa::AVX2: return avx2;
    default: return baseline;
  }
}
