// What products of bf16 pairs need: x in the order in which packed values meet it. Included by
// linear_dots.cpp alone, after its target pragma.
//
// An instruction multiplies 32 bf16 with 32, adds the products of a pair to a float32 sum and takes
// subnormal numbers for 0.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "elements.h"
#include "linear_sparse.h"
#include "linear_values.h"

constexpr int PAIRED = 32;  // bf16 of a register

// x in order of columns.
struct InColumns {
  static constexpr int COLUMNS = PAIRED;
  RAC_INLINE int64_t vector(int64_t) { return 0; }
  RAC_INLINE int64_t place(int64_t group) { return group * 4; }
};

// x of groups of four columns beside 2:4 values: a quarter of a register holds the two groups whose
// values of two rows lie in the same quarter of another, see dots_2to4.h.
struct InQuarters {
  static constexpr int COLUMNS = 2 * PAIRED;
  RAC_INLINE int64_t vector(int64_t group) { return group % 4 / 2; }
  RAC_INLINE int64_t place(int64_t group) { return group / 4 * 8 + group % 2 * 4; }
};

// x of tokens [token, token + TB) as bf16 [C / COLUMNS][COLUMNS / 32][TB][32], zeros where there is no
// x. Says of each token whether all of its x is finite.
template <int TB, typename Order>
RAC_INLINE void arrange_pairs(const SparseLinear& job, const LinearScratch& scratch, int64_t token,
                              uint16_t* to) {
  constexpr int GROUPS = Order::COLUMNS / 4;
  const auto* x = static_cast<const uint16_t*>(job.x);
  for (int64_t t = 0; t < TB && token + t < job.tokens; ++t) {
    const uint16_t* from = x + (token + t) * job.columns;
    i32x4 wrong = {};
    const auto arrange_four = [&](int64_t c, int64_t count) {
      const int64_t group = c / 4 % GROUPS;
      uint16_t four[4] = {};
      std::memcpy(four, from + c, count * sizeof(four[0]));
      wrong |= not_finite(BFloat16::load<4>(four));
      uint16_t* block = to + c / Order::COLUMNS * Order::COLUMNS * TB;
      std::memcpy(block + (Order::vector(group) * TB + t) * PAIRED + Order::place(group), four,
                  sizeof(four));
    };
    const int64_t whole = job.columns / 4 * 4;
    for (int64_t c = 0; c < whole; c += 4) arrange_four(c, 4);
    if (whole < job.columns) arrange_four(whole, job.columns - whole);
    scratch.finite[token + t] = !(wrong[0] | wrong[1] | wrong[2] | wrong[3]);
  }
}
