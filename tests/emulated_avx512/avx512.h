// Included before every file of csrc/cpu: its AVX-512 kernels, compiled for a CPU that has AVX2. GCC
// splits vectors of 16 lanes itself.
#pragma once

#include "../../csrc/cpu/isa.h"

#define RAC_EMULATED_AVX512
#undef RAC_AVX512
#define RAC_AVX512
#undef RAC_HAS_BF16
#define RAC_HAS_BF16
#undef RAC_VBMI2
#define RAC_VBMI2
#undef RAC_HAS_AMX
#define RAC_HAS_AMX
#undef RAC_AMX
#define RAC_AMX
#define __builtin_cpu_supports(feature) true  // isa.cpp: AVX-512 is the best there is

// isa.h's pick, so that the other two are not compiled.
#define pick pick_avx512
template <typename Function>
constexpr Function pick_avx512(Function, Function, Function avx512) {
  return avx512;
}
