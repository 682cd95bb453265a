// Small upper triangular blocks in float64. Inlined, so that they use the instructions of the caller.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "isa.h"

// One register of doubles where one holds L floats.
template <int L>
struct Doubles;
template <>
struct Doubles<4> {
  typedef double F64 __attribute__((vector_size(16), aligned(8)));
};
template <>
struct Doubles<8> {
  typedef double F64 __attribute__((vector_size(32), aligned(8)));
};
template <>
struct Doubles<16> {
  typedef double F64 __attribute__((vector_size(64), aligned(8)));
};
template <int L>
using F64 = typename Doubles<L>::F64;

// rows = U^-1 [width, width] of U_ij = lower[j * stride + i], from the last row on:
// R_i = (I_i - sum_{k>i} U_ik R_k) / U_ii. Left of the diagonal `rows` must be, and stay, 0.
// Sums of SPAN columns stay in registers over all k.
template <int L, typename Number>
RAC_INLINE void invert_upper(const Number* lower, int64_t stride, int64_t width, double* rows) {
  constexpr int64_t VECTORS = 4, SPAN = VECTORS * L / 2;
  std::vector<double> factors(width);
  for (int64_t i = width - 1; i >= 0; --i) {
    double* row = rows + i * width;
    for (int64_t k = i; k < width; ++k) factors[k] = lower[k * stride + i];
    row[i] = 1;
    int64_t end = width;
    for (; end >= SPAN && end > i; end -= SPAN) {
      F64<L> sums[VECTORS];
      std::memcpy(sums, row + end - SPAN, sizeof(sums));
      for (int64_t k = i + 1; k < end; ++k) {  // rows from `end` on are 0 here
        const auto* below = reinterpret_cast<const F64<L>*>(rows + k * width + end - SPAN);
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) sums[v] -= factors[k] * below[v];
      }
      std::memcpy(row + end - SPAN, sums, sizeof(sums));
    }
    for (int64_t k = i + 1; k < end; ++k) {
      for (int64_t j = k; j < end; ++j) row[j] -= factors[k] * rows[k * width + j];
    }
    for (int64_t j = i; j < width; ++j) row[j] /= factors[i];
  }
}

// above -= sum_p panel_pr panel_p, p from the last on, in columns up to r.
template <int L, int PANEL>
RAC_INLINE void push_panel(const double* panel, int64_t width, int64_t r, double* above) {
  constexpr int64_t LANES = L / 2;
  double factors[PANEL];
  for (int p = 0; p < PANEL; ++p) factors[p] = panel[p * width + r];
  int64_t i = 0;
  for (; i + LANES <= r + 1; i += LANES) {
    F64<L> sum = *reinterpret_cast<const F64<L>*>(above + i);
#pragma GCC unroll 8
    for (int p = PANEL - 1; p >= 0; --p) {
      sum -= factors[p] * *reinterpret_cast<const F64<L>*>(panel + p * width + i);
    }
    *reinterpret_cast<F64<L>*>(above + i) = sum;
  }
  for (; i <= r; ++i) {
    for (int p = PANEL - 1; p >= 0; --p) above[i] -= factors[p] * panel[p * width + i];
  }
}

// L [width, width] of the lower triangle of H = L^T L in `rows`, in its place, from the last row
// on. Returns -1, or the first row whose pivot, left in its place, is not positive and finite.
// Rows above a panel receive all updates of the panel's rows at once, in their order.
template <int L>
RAC_INLINE int64_t factor_lower(double* rows, int64_t width) {
  constexpr int64_t PANEL = 8;
  for (int64_t end = width; end > 0; end -= PANEL) {
    const int64_t start = std::max<int64_t>(end - PANEL, 0);
    for (int64_t j = end - 1; j >= start; --j) {
      double* row = rows + j * width;
      if (!(row[j] > 0 && row[j] <= std::numeric_limits<double>::max())) return j;
      const double pivot = std::sqrt(row[j]);
      for (int64_t i = 0; i <= j; ++i) row[i] /= pivot;
      for (int64_t r = start; r < j; ++r) {
        double* above = rows + r * width;
        const double factor = row[r];
        for (int64_t i = 0; i <= r; ++i) above[i] -= factor * row[i];
      }
    }
    for (int64_t r = 0; r < start; ++r) {  // a panel above which there are rows is whole
      push_panel<L, PANEL>(rows + start * width, width, r, rows + r * width);
    }
  }
  return -1;
}
