// Rows rounded to e4m3 with the scale that maps their largest to 448: bit for bit as
// rac_kernels/reference/quantize_fp8_rows.py rounds them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "elements.h"

constexpr int32_t INFINITE = 0x7f800000;  // the bits of float32's; above them are those of a NaN
constexpr float LARGEST_E4M3 = 448.0f;

template <int L>
RAC_INLINE I32<L> larger_magnitude(I32<L> known, F32<L> value) {
  const I32<L> bits = reinterpret_cast<I32<L>>(value) & 0x7fffffff;
  return bits > known ? bits : known;
}

// The bits of the largest magnitude of a row.
template <int L, typename T>
RAC_INLINE int32_t largest_magnitude(const typename T::Storage* x, int64_t count) {
  I32<L> found = {};
  int64_t i = 0;
  for (; i + L <= count; i += L) found = larger_magnitude<L>(found, T::template load<L>(x + i));
  if (i < count) found = larger_magnitude<L>(found, load_first<L, T>(x + i, count - i));
  int32_t lanes[L];
  std::memcpy(lanes, &found, sizeof(lanes));
  return *std::max_element(lanes, lanes + L);
}

// What a row with that largest magnitude is divided by; 1 for zeros and where there is a NaN.
RAC_INLINE float fp8_scale(int32_t magnitude, bool bfloat16) {
  if (magnitude > INFINITE) return 1.0f;
  float largest;
  std::memcpy(&largest, &magnitude, sizeof(largest));
  f32x4 scale = f32x4{} + largest / LARGEST_E4M3;
  if (bfloat16) scale = BFloat16::round<4>(scale);
  return scale[0] > 0.0f ? scale[0] : 1.0f;
}

// At most 448; a NaN stays one.
template <int L>
RAC_INLINE F32<L> within_e4m3(F32<L> x) {
  const F32<L> most = F32<L>{} + LARGEST_E4M3;
  x = x > most ? most : x;
  return x < -most ? -most : x;
}

// 1.5 * 2^20 times the power of two of x, or of 2^-6: added to x, it leaves three bits of its
// fraction, and those alone below 2^-6, rounded to the nearest, ties to even.
constexpr int32_t LEAST_ROUNDER = (127 - 6 + 20) << 23 | 1 << 22;
template <int L>
RAC_INLINE F32<L> rounder_e4m3(F32<L> x) {
  const I32<L> bits = (reinterpret_cast<I32<L>>(x) & INFINITE) + ((20 << 23) | (1 << 22));
  const I32<L> least = I32<L>{} + LEAST_ROUNDER;
  return reinterpret_cast<F32<L>>(bits > least ? bits : least);
}

// The value of e4m3 next to x, which is within it.
template <int L>
RAC_INLINE F32<L> nearest_e4m3(F32<L> x) {
  const F32<L> rounder = rounder_e4m3<L>(x);
  return (x + rounder) - rounder;
}

// Its exponent and fraction as e4m3 has them, without the sign.
template <int L>
RAC_INLINE I32<L> magnitude_e4m3(F32<L> x) {
  x = reinterpret_cast<F32<L>>(reinterpret_cast<I32<L>>(x) & 0x7fffffff);
  const F32<L> rounder = rounder_e4m3<L>(x);
  const auto power = reinterpret_cast<I32<L>>(rounder);
  return (power - LEAST_ROUNDER >> 20) + (reinterpret_cast<I32<L>>(x + rounder) - power);
}
