// L elements of a tensor as float32 lanes and back, rounded as torch rounds: nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>

#include "lanes.h"

template <int L>
struct Halves;
template <>
struct Halves<4> {
  typedef uint16_t U16 __attribute__((vector_size(8)));
  typedef uint32_t U32 __attribute__((vector_size(16)));
};
template <>
struct Halves<8> {
  typedef uint16_t U16 __attribute__((vector_size(16)));
  typedef uint32_t U32 __attribute__((vector_size(32), aligned(32)));
};
template <>
struct Halves<16> {
  typedef uint16_t U16 __attribute__((vector_size(32), aligned(32)));
  typedef uint32_t U32 __attribute__((vector_size(64), aligned(64)));
};

struct Float {
  using Storage = float;

  template <int L>
  RAC_INLINE F32<L> load(const float* from) {
    F32<L> value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  template <int L>
  RAC_INLINE F32<L> round(F32<L> value) {
    return value;
  }
  template <int L>
  RAC_INLINE void store(float* to, F32<L> value) {
    std::memcpy(to, &value, sizeof(value));
  }
};

// Halves as the upper halves of L words, the lower ones 0: bfloat16 as float32. Interleaving with
// zeros takes half as many instructions as converting and shifting, which GCC 9 to 11 are left with.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define RAC_SHUFFLE __builtin_shufflevector
#endif
#endif
template <int L>
RAC_INLINE F32<L> widen(typename Halves<L>::U16 h) {
#if defined(RAC_SHUFFLE)
  const typename Halves<L>::U16 zero = {};
  if constexpr (L == 4) {
    return reinterpret_cast<F32<L>>(RAC_SHUFFLE(zero, h, 0, 4, 0, 5, 0, 6, 0, 7));
  } else if constexpr (L == 8) {
    return reinterpret_cast<F32<L>>(
        RAC_SHUFFLE(zero, h, 0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15));
  } else {
    return reinterpret_cast<F32<L>>(
        RAC_SHUFFLE(zero, h, 0, 16, 0, 17, 0, 18, 0, 19, 0, 20, 0, 21, 0, 22, 0, 23, 0, 24, 0, 25,
                    0, 26, 0, 27, 0, 28, 0, 29, 0, 30, 0, 31));
  }
#else
  return reinterpret_cast<F32<L>>(__builtin_convertvector(h, typename Halves<L>::U32) << 16);
#endif
}

struct BFloat16 {
  using Storage = uint16_t;

  template <int L>
  RAC_INLINE F32<L> load(const uint16_t* from) {
    typename Halves<L>::U16 halves;
    std::memcpy(&halves, from, sizeof(halves));
    return widen<L>(halves);
  }
  // The bits of the nearest bfloat16 in the upper half of each lane. A NaN made from bfloat16 values
  // has a lower half of 0, so that it stays one.
  template <int L>
  RAC_INLINE typename Halves<L>::U32 nearest(F32<L> value) {
    const auto bits = reinterpret_cast<typename Halves<L>::U32>(value);
    return bits + 0x7fff + ((bits >> 16) & 1);
  }
  template <int L>
  RAC_INLINE F32<L> round(F32<L> value) {
    return reinterpret_cast<F32<L>>(nearest<L>(value) & 0xffff0000u);
  }
  template <int L>
  RAC_INLINE void store(uint16_t* to, F32<L> value) {
    const auto halves = __builtin_convertvector(nearest<L>(value) >> 16, typename Halves<L>::U16);
    std::memcpy(to, &halves, sizeof(halves));
  }
};

// Read alone. Widened exactly, as the two above are: subnormals, Inf and NaN too.
struct Float16 {
  using Storage = uint16_t;

  template <int L>
  RAC_INLINE F32<L> load(const uint16_t* from) {
    using U32 = typename Halves<L>::U32;
    typename Halves<L>::U16 halves;
    std::memcpy(&halves, from, sizeof(halves));
    const U32 bits = __builtin_convertvector(halves, U32);
    // exponent and fraction at their places in a float, whose exponent counts from 112 lower
    const F32<L> magnitude = reinterpret_cast<F32<L>>((bits & 0x7fff) << 13) * 0x1p112f;
    const U32 not_finite = reinterpret_cast<U32>((bits & 0x7c00) == 0x7c00) & 0x7f800000;
    const U32 sign = (bits & 0x8000) << 16;
    return reinterpret_cast<F32<L>>(reinterpret_cast<U32>(magnitude) | not_finite | sign);
  }
};

// The first `count` < L elements; the other lanes are 0.
template <int L, typename T>
RAC_INLINE F32<L> load_first(const typename T::Storage* from, int64_t count) {
  typename T::Storage part[L] = {};
  std::memcpy(part, from, count * sizeof(part[0]));
  return T::template load<L>(part);
}

template <int L, typename T>
RAC_INLINE void store_first(typename T::Storage* to, F32<L> value, int64_t count) {
  typename T::Storage part[L];
  T::template store<L>(part, value);
  std::memcpy(to, part, count * sizeof(part[0]));
}
