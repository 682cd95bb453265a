// Rotary position embedding (RoFormer, Su et al. 2021) of one head, as torch rounds it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "elements.h"

template <typename T>
using Element = typename T::Storage;

// Keeps products from being fused with the sum that follows: torch rounds each.
RAC_INLINE void keep_apart(F32<4>& a, F32<4>& b) {
#if defined(__x86_64__)
  asm("" : "+x"(a), "+x"(b));
#else
  asm("" : "+w"(a), "+w"(b));
#endif
}

// y = x rotated by half its width: round(round(x cos) + round(rotated x sin)).
template <typename T>
RAC_INLINE void rotate(const Element<T>* x, const Element<T>* cosine, const Element<T>* sine,
                       int64_t width, Element<T>* y) {
  const int64_t half = width / 2;
  for (int64_t i = 0; i < width; i += 4) {
    const int64_t count = std::min<int64_t>(4, width - i);
    Element<T> turned[4] = {};
    for (int64_t k = 0; k < count; ++k) {
      turned[k] = i + k < half ? x[i + k + half] : x[i + k - half];
    }
    F32<4> other = T::template load<4>(turned);
    for (int64_t k = 0; k < count; ++k) other[k] = i + k < half ? -other[k] : other[k];
    F32<4> straight = load_first<4, T>(x + i, count) * load_first<4, T>(cosine + i, count);
    F32<4> crossed = other * load_first<4, T>(sine + i, count);
    keep_apart(straight, crossed);
    store_first<4, T>(y + i, T::template round<4>(straight) + T::template round<4>(crossed), count);
  }
}
