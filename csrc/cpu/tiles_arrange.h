// x as tiles of bf16 for linear_tiles.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "elements.h"
#include "fp8_rows.h"
#include "linear_sparse.h"
#include "linear_values.h"

constexpr int64_t SIDE = 16;   // rows of a tile, of W or pairs of columns
constexpr int64_t DEPTH = 32;  // columns of W's

// x of one token as bf16, zeros up to whole tiles and where there is no token.
template <typename T>
RAC_INLINE void copy_x(const SparseLinear& job, const LinearScratch& scratch, int64_t token,
                       uint16_t* to) {
  const auto* x = static_cast<const typename T::Storage*>(job.x) + token * job.columns;
  float scale = 1.0f;
  if (job.rounds_x) {
    const int32_t largest = largest_magnitude<16, T>(x, job.columns);
    scale = fp8_scale(largest, false);
    scratch.x_scale[token] = largest < INFINITE ? scale : NAN;
  }
  for (int64_t c = 0; c < job.columns; c += 16) {
    const int64_t left = job.columns - c;
    F32<16> lanes = left < 16 ? load_first<16, T>(x + c, left) : T::template load<16>(x + c);
    if (job.rounds_x) lanes = nearest_e4m3<16>(within_e4m3<16>(lanes / scale));
    BFloat16::store<16>(to + c, lanes);  // exact
  }
}

RAC_INLINE void copy_token(const SparseLinear& job, const LinearScratch& scratch, int64_t token,
                           uint16_t* to) {
  const int64_t width = (job.columns + DEPTH - 1) / DEPTH * DEPTH;
  const int64_t begin = token < job.tokens ? job.columns / DEPTH * DEPTH : 0;
  std::memset(to + begin, 0, (width - begin) * sizeof(*to));
  if (token >= job.tokens) return;
  with_element(job.element,
               [&](auto element) { copy_x<decltype(element)>(job, scratch, token, to); });
}

// x of 16 B tokens as [C / 32][B][16 pairs of columns][16 tokens][2].
RAC_INLINE void arrange(const SparseLinear& job, const LinearScratch& scratch, int64_t group) {
  const int64_t at_once = tokens_at_once(job), first = group * at_once;
  const int64_t width = (job.columns + DEPTH - 1) / DEPTH * DEPTH;
  auto* to = reinterpret_cast<uint16_t*>(scratch.panels) + first * job.padded;
  const bool as_it_is = job.element == Element::BF16 && !job.rounds_x && width == job.columns;
  AlignedArray<uint16_t> rows(4 * width, false);  // of four tokens
  for (int64_t token = first; token < std::min(first + at_once, job.tokens); token += 4) {
    const uint16_t* four = rows.get();
    if (as_it_is && token + 4 <= job.tokens) {
      four = static_cast<const uint16_t*>(job.x) + token * width;
    } else {
      for (int64_t t = 0; t < 4; ++t) copy_token(job, scratch, token + t, rows.get() + t * width);
    }
    uint16_t* tile = to + (token - first) / SIDE * SIDE * DEPTH + token % SIDE * 2;
    for (int64_t c = 0; c < width; c += DEPTH, tile += at_once * DEPTH) {
      for (int64_t pair = 0; pair < DEPTH / 2; pair += 4) {
        transpose_4x4(reinterpret_cast<const float*>(four + c + 2 * pair), width / 2,
                      reinterpret_cast<float*>(tile + pair * DEPTH), SIDE);
      }
    }
  }
}
