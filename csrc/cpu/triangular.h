// Small upper triangular blocks in float64.
#pragma once

#include <cstdint>
#include <vector>

// U^-1 [width, width] of U_ij = lower[j * stride + i], row by row from the last one:
// R_i = (I_i - sum_{k>i} U_ik R_k) / U_ii.
template <typename Number>
std::vector<double> invert_upper(const Number* lower, int64_t stride, int64_t width) {
  std::vector<double> rows(width * width);
  for (int64_t i = width - 1; i >= 0; --i) {
    double* row = rows.data() + i * width;
    row[i] = 1;
    for (int64_t k = i + 1; k < width; ++k) {
      const double factor = lower[k * stride + i];
      const double* below = rows.data() + k * width;
      for (int64_t j = k; j < width; ++j) row[j] -= factor * below[j];
    }
    const double pivot = lower[i * stride + i];
    for (int64_t j = i; j < width; ++j) row[j] /= pivot;
  }
  return rows;
}
