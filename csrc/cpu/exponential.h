// e^x on vectors of L lanes, the same bits for every L.
#pragma once

#include "lanes.h"

// e^x = 2^n e^r with |r| <= ln(2) / 2, x clamped to [-88, 88] so that 2^n is a float. The Taylor
// series stops after r^7: what is left is below 0.3466^8 / 8! < 6e-9 of e^r, a tenth of float32's
// unit roundoff. n ln(2) is taken off in two parts, the first of 16 bits, so that n times it is
// exact. Within 2 ulp; NaN stays NaN.
template <int L>
RAC_INLINE F32<L> exponential(F32<L> x) {
  const F32<L> most = F32<L>{} + 88.0f;
  x = most < x ? most : x;
  x = -most > x ? -most : x;
  const float whole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the bits
  const F32<L> sum = x * 1.44269504f + whole;
  const F32<L> n = sum - whole;
  const F32<L> r = (x - n * 0.693145751953125f) - n * 1.42860677e-6f;
  const F32<L> r2 = r * r;
  const F32<L> low = (1.0f + r) + r2 * (0.5f + r * (1.0f / 6));
  const F32<L> high = (1.0f / 24 + r * (1.0f / 120)) + r2 * (1.0f / 720 + r * (1.0f / 5040));
  const I32<L> power = (reinterpret_cast<I32<L>>(sum) + (127 - 0x4b400000)) << 23;
  return (low + r2 * r2 * high) * reinterpret_cast<F32<L>>(power);
}
