// linear_sparse: a few rows of W at a time, from their first values to their last, against TB tokens,
// so that W is read once and in order. For more tokens a tile of rows stays in the L2 cache and is
// read again for the next TB, of as many as the L3 cache holds.
//
// A sum is made of PARTS * L partial sums: the same bits for any number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "fp8_rows.h"
#include "linear_2to4.h"
#include "linear_bitmap.h"
#include "linear_dense.h"

constexpr int64_t TILE_BYTES = 96 << 10;  // of W, that stay in the L2 cache beside x
constexpr int64_t X_FLOATS = 2 << 20;     // of x, that stay in the L3 cache while W is read once

// What x is ordered by: L columns, or the blocks of 2:4.
template <int L>
struct InOrder {
  static constexpr int COLUMNS = L, VECTORS = 1;
  RAC_INLINE int64_t vector(int64_t) { return 0; }
  RAC_INLINE int64_t lane(int64_t group) { return group * 4; }
};

// x of tokens [token, token + TB) as float32 [C / COLUMNS][VECTORS][TB][L], in whole blocks, zeros
// where there is no x. Says of each token whether all of its x is finite; if ROUNDS, x is divided
// by a scale and rounded to e4m3, and the scale says so: it is NaN.
template <int L, int TB, typename Order, typename T, bool ROUNDS>
RAC_INLINE void arrange(const SparseLinear& job, const LinearScratch& scratch, int64_t token,
                        float* to) {
  constexpr int GROUPS = Order::COLUMNS / 4;
  const auto* x = static_cast<const typename T::Storage*>(job.x);
  for (int64_t t = 0; t < TB && token + t < job.tokens; ++t) {
    const auto* from = x + (token + t) * job.columns;
    float* block = to + t * L;
    float scale = 1.0f;
    if constexpr (ROUNDS) {
      const int32_t largest = largest_magnitude<L, T>(from, job.columns);
      scale = fp8_scale(largest, false);
      scratch.x_scale[token + t] = largest < INFINITE ? scale : NAN;
    }
    i32x4 wrong = {};
    int64_t c = 0;
    for (; c + Order::COLUMNS <= job.columns; c += Order::COLUMNS) {
#pragma GCC unroll 32
      for (int64_t g = 0; g < GROUPS; ++g) {
        f32x4 four = T::template load<4>(from + c + g * 4);
        if constexpr (ROUNDS) four = nearest_e4m3<4>(within_e4m3<4>(four / scale));
        else wrong |= not_finite(four);
        std::memcpy(block + Order::vector(g) * TB * L + Order::lane(g), &four, sizeof(four));
      }
      block += Order::COLUMNS * TB;
    }
    for (int64_t g = 0; c + g * 4 < job.columns; ++g) {
      const int64_t left = std::min<int64_t>(4, job.columns - c - g * 4);
      f32x4 four = load_first<4, T>(from + c + g * 4, left);
      if constexpr (ROUNDS) four = nearest_e4m3<4>(within_e4m3<4>(four / scale));
      else wrong |= not_finite(four);
      std::memcpy(block + Order::vector(g) * TB * L + Order::lane(g), &four, sizeof(four));
    }
    scratch.finite[token + t] = !(wrong[0] | wrong[1] | wrong[2] | wrong[3]);
  }
}

// All of y from x in that order, TB tokens after another; tile(row, token, x) makes RB rows of it.
template <int RB, int TB, typename X, typename Tile>
RAC_INLINE void all_rows(const SparseLinear& job, const X* panels, Tile tile) {
  const int64_t groups = (job.tokens + TB - 1) / TB, size = TB * job.padded;
  const int64_t fit = std::max<int64_t>(TILE_BYTES / job.columns / RB, 1) * RB;
  const int64_t rows = groups > 1 ? fit : RB, part = std::max<int64_t>(X_FLOATS / size, 1);
  for (int64_t begin = 0; begin < groups; begin += part) {
    const int64_t end = std::min(begin + part, groups);
#pragma omp for schedule(static) nowait
    for (int64_t first = 0; first < job.rows; first += rows) {
      const int64_t last = std::min(first + rows, job.rows);
      for (int64_t group = begin; group < end; ++group) {
        for (int64_t row = first; row < last; row += RB) {
          tile(row, group * TB, panels + group * size);
        }
      }
    }
  }
}

// Call `run(packing, tokens at a time)` for what the job holds.
template <typename Run>
RAC_INLINE void with_tokens(const SparseLinear& job, Run run) {
  with_packing(job, [&](auto packing) {
    const int64_t at_once = tokens_at_once(job);
    if (at_once == 1) run(packing, std::integral_constant<int, 1>());
    else if (at_once == 2) run(packing, std::integral_constant<int, 2>());
    else if (at_once == 4) run(packing, std::integral_constant<int, 4>());
    else if constexpr (decltype(packing)::PACKING == Packing::TWO_TO_FOUR) {
      run(packing, std::integral_constant<int, 8>());
    }
  });
}

template <typename Set>
RAC_INLINE void arrange_group(const SparseLinear& job, const LinearScratch& scratch, int64_t group) {
  with_tokens(job, [&](auto packing, auto at_once) {
    using P = decltype(packing);
    using Order = std::conditional_t<P::PACKING == Packing::TWO_TO_FOUR,
                                     Block2to4<Set::L, P::Values::BYTES>, InOrder<Set::L>>;
    constexpr int TB = decltype(at_once)::value;
    float* to = scratch.panels + group * TB * job.padded;
    with_element(job.element, [&](auto element) {
      using T = decltype(element);
      constexpr bool FP8 = std::is_same_v<typename P::Values, Fp8>;
      arrange<Set::L, TB, Order, T, FP8>(job, scratch, group * TB, to);
    });
  });
}

template <typename Set>
RAC_INLINE void linear(const SparseLinear& job, const LinearScratch& scratch) {
  with_tokens(job, [&](auto packing, auto at_once) {
    using P = decltype(packing);
    using V = typename P::Values;
    constexpr int TB = decltype(at_once)::value;
    if constexpr (P::PACKING == Packing::DENSE) {
      constexpr int RB = TB == 4 ? 3 : 4;
      all_rows<RB, TB>(job, scratch.panels, [&](int64_t row, int64_t token, const float* x) {
        tile_dense<Set, V, RB, TB>(job, row, token, x);
      });
    } else if constexpr (P::PACKING == Packing::BITMAP) {
      constexpr int RB = TB == 2 ? 4 : 3;
      all_rows<RB, TB>(job, scratch.panels, [&](int64_t row, int64_t token, const float* x) {
        tile_bitmap<Set, V, RB, TB>(job, row, token, x);
      });
    } else {
      all_rows<4, TB>(job, scratch.panels, [&](int64_t row, int64_t token, const float* x) {
        tile_2to4<Set, V, TB>(job, scratch.x_scale, row, token, x);
      });
    }
  });
}
