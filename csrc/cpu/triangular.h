// Small upper triangular blocks in float64. Inlined, so that they use the instructions of the caller.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "isa.h"

// rows = U^-1 [width, width] of U_ij = lower[j * stride + i], from the last row on:
// R_i = (I_i - sum_{k>i} U_ik R_k) / U_ii. Left of the diagonal nothing is written.
template <typename Number>
RAC_INLINE void invert_upper(const Number* lower, int64_t stride, int64_t width, double* rows) {
  for (int64_t i = width - 1; i >= 0; --i) {
    double* row = rows + i * width;
    for (int64_t j = i; j < width; ++j) row[j] = j == i;
    for (int64_t k = i + 1; k < width; ++k) {
      const double factor = lower[k * stride + i];
      const double* below = rows + k * width;
      for (int64_t j = k; j < width; ++j) row[j] -= factor * below[j];
    }
    const double pivot = lower[i * stride + i];
    for (int64_t j = i; j < width; ++j) row[j] /= pivot;
  }
}

// L [width, width] of the lower triangle of H = L^T L in `rows`, in its place, from the last row
// on. Returns -1, or the first row whose pivot, left in its place, is not positive and finite.
RAC_INLINE int64_t factor_lower(double* rows, int64_t width) {
  for (int64_t j = width - 1; j >= 0; --j) {
    double* row = rows + j * width;
    if (!(row[j] > 0 && row[j] <= std::numeric_limits<double>::max())) return j;
    const double pivot = std::sqrt(row[j]);
    for (int64_t i = 0; i <= j; ++i) row[i] /= pivot;
    for (int64_t r = 0; r < j; ++r) {
      double* above = rows + r * width;
      const double factor = row[r];
      for (int64_t i = 0; i <= r; ++i) above[i] -= factor * row[i];
    }
  }
  return -1;
}
