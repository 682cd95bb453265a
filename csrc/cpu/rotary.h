// Rotary position embedding (RoFormer, Su et al. 2021) of one head, as torch rounds it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "elements.h"

template <typename T>
using Element = typename T::Storage;

// Keeps products from being fused with the sum that follows: torch rounds each. Vectors that are no
// register, where AVX-512 is emulated or the CPU has no such, go through memory.
template <int L>
RAC_INLINE void keep_apart(F32<L>& a, F32<L>& b) {
#if defined(__x86_64__) && !defined(RAC_EMULATED_AVX512)
  asm("" : "+v"(a), "+v"(b));
#elif defined(__x86_64__)
  if constexpr (L == 16) asm("" : "+m"(a), "+m"(b));
  else asm("" : "+v"(a), "+v"(b));
#else
  if constexpr (L > 4) asm("" : "+m"(a), "+m"(b));
  else asm("" : "+w"(a), "+w"(b));
#endif
}

// round(x cos) + round(turned sin), which is rounded where it is stored.
template <int L, typename T>
RAC_INLINE F32<L> rotated(F32<L> x, F32<L> turned, F32<L> cosine, F32<L> sine) {
  F32<L> straight = x * cosine, crossed = turned * sine;
  keep_apart<L>(straight, crossed);
  return T::template round<L>(straight) + T::template round<L>(crossed);
}

// y = x rotated by half its width.
template <int L, typename T>
RAC_INLINE void rotate(const Element<T>* x, const Element<T>* cosine, const Element<T>* sine,
                       int64_t width, Element<T>* y) {
  const int64_t half = width / 2;
  for (int64_t i = 0; i < half; i += L) {
    const int64_t count = std::min<int64_t>(L, half - i);
    const auto load = [=](const Element<T>* from) __attribute__((always_inline)) {
      return count == L ? T::template load<L>(from) : load_first<L, T>(from, count);
    };
    const F32<L> low = load(x + i), high = load(x + half + i);
    const F32<L> first = rotated<L, T>(low, -high, load(cosine + i), load(sine + i));
    const F32<L> second = rotated<L, T>(high, low, load(cosine + half + i), load(sine + half + i));
    if (count == L) {
      T::template store<L>(y + i, first);
      T::template store<L>(y + half + i, second);
    } else {
      store_first<L, T>(y + i, first, count);
      store_first<L, T>(y + half + i, second, count);
    }
  }
}
