#include "isa.h"

#include <atomic>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(RAC_HAS_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__x86_64__)
// Whether fp16 is widened in one instruction, as on every CPU that was built with AVX2; a virtual
// machine may hide it. Compilers before GCC 11 know no __builtin_cpu_supports("f16c").
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

// Whether tiles of bf16 can be multiplied: the CPU has them, the system saves them where it
// switches between threads, and it grants them to this process (Linux 5.16; sandboxes may refuse).
bool has_amx() {
#if defined(RAC_HAS_AMX)
  constexpr unsigned BF16_AND_TILE = 1u << 22 | 1u << 24, TILE_STATE = 3u << 17;
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  if ((edx & BF16_AND_TILE) != BF16_AND_TILE) return false;
  asm("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));  // there is: AVX-512 was asked for before
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  return (eax & TILE_STATE) == TILE_STATE &&
         syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!has_f16c()) return Isa::BASELINE;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return has_amx() ? Isa::AMX : Isa::AVX512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::AVX2;
#endif
  return Isa::BASELINE;
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa{best_isa()};
  return isa;
}

}  // namespace

Isa current_isa() { return chosen().load(std::memory_order_relaxed); }

void use_isa(const std::string& name) {
  Isa wanted;
  if (name == "best") wanted = best_isa();
  else if (name == "amx") wanted = Isa::AMX;
  else if (name == "avx512") wanted = Isa::AVX512;
  else if (name == "avx2") wanted = Isa::AVX2;
  else if (name == "baseline") wanted = Isa::BASELINE;
  else throw std::invalid_argument("use_instruction_set: no instruction set " + name);
  if (wanted > best_isa()) {
    throw std::invalid_argument("use_instruction_set: this CPU does not have " + name);
  }
  chosen().store(wanted);
}

std::string isa_name() {
  switch (current_isa()) {
    case Isa::AMX: return "amx";
    case Isa::AVX512: return "avx512";
    case Isa::AVX2: return "avx2";
    default: return "baseline";
  }
}
