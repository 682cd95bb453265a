#pragma once

#include <cstdint>

// The lower triangle of `from` [columns, columns] to that of `to` [columns, columns], whose rows are
// neighbours, and zeros above it. Pages of a large `to` that hold nothing but zeros take no memory.
void copy_lower(const float* from, int64_t stride, float* to, int64_t columns, int threads);

// The first pivot that is not positive and finite; column -1 where there is none.
struct Pivot {
  int64_t column;
  double value;
};

// Overwrite the lower triangle of H [columns, columns] with that of U^T, H = U U^T; what is above
// the diagonal is neither read nor written. The matrix is half overwritten where a pivot fails.
Pivot reversed_cholesky(float* matrix, int64_t stride, int64_t columns, int threads);
