// A 2:4 linear whose values have 16 bits, with AVX2: x is permuted to the values, so that zeros
// take no multiply-adds.
//
// Four rows a, b, c, d and 32 columns, 8 groups of four, at a time. A group's two values are one
// 32-bit word of its row; a 4 x 4 transpose of words within each half of the registers gives
//
//   vector k   [a_k b_k c_k d_k | a_k+4 b_k+4 c_k+4 d_k+4]      k = 0..3, a_k: group k of row a
//
// whose lower 16 bits are the first values and upper ones the second. The x of groups k and k + 4
// are the two halves of one register, from which vpermilps takes by the two bits of each value's
// position what it is to be multiplied with. A register of sums has four rows in either half.
//
// Included by linear_avx2.cpp.
#pragma once

#include <algorithm>

#include "linear_few.h"

constexpr int64_t BLOCK = 32;        // columns
constexpr int64_t TILE_ROWS = 32;    // rows of W that stay in the caches for all tokens
constexpr int64_t TILE_COLUMNS = 512;
constexpr int64_t AHEAD = 768;       // bytes of a row fetched before they are needed

// x with the columns of each block in the order 0-3, 16-19, 4-7, 20-23, ...: two halves a vector.
RAC_INLINE void permute_x(const SparseLinear& job, float* to) {
#pragma omp for schedule(static)
  for (int64_t block = 0; block < job.tokens * job.columns / BLOCK; ++block) {
    const float* from = job.x + block * BLOCK;  // rows of x are whole blocks: nothing is padded
    for (int k = 0; k < 4; ++k) {
      std::memcpy(to + block * BLOCK + 8 * k, from + 4 * k, 16);
      std::memcpy(to + block * BLOCK + 8 * k + 4, from + 16 + 4 * k, 16);
    }
  }
}

template <typename V>
RAC_INLINE __m256 widened(__m256i word) {
  return reinterpret_cast<__m256>(V::template widen<8>(reinterpret_cast<I32<8>>(word)));
}

// sums[t] += rows 4 * four to 4 * four + 3 of W times token t over columns [first, last).
template <typename V, int TB>
RAC_INLINE void group_tile(const SparseLinear& job, int64_t four, const float* const (&x)[TB],
                           int64_t first, int64_t last, __m128 (&sums)[TB]) {
  constexpr int PARTS = TB == 1 ? 4 : TB <= 4 ? 2 : 1;  // sums in flight hide the latency
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  const __m256i halves = _mm256_setr_epi32(0, 0, 0, 0, 16, 16, 16, 16);
  const uint8_t* values = job.values + four * 4 * job.columns + first;
  const uint8_t* codes = job.codes + four * job.columns / 2 + first / 2;
  __m256 part[PARTS][TB];
#pragma GCC unroll 8
  for (int t = 0; t < TB; ++t) {
    part[0][t] = _mm256_zextps128_ps256(sums[t]);
#pragma GCC unroll 4
    for (int p = 1; p < PARTS; ++p) part[p][t] = _mm256_setzero_ps();
  }
  for (int64_t c = first; c < last; c += BLOCK, values += BLOCK, codes += BLOCK / 2) {
    __m256i row[4], word[4];
    // Four short streams are too many and too short for the hardware: at the end of these rows
    // comes the beginning of the next four.
    const int64_t ahead = c + AHEAD < job.columns ? AHEAD : AHEAD + 3 * job.columns;
    _mm_prefetch(reinterpret_cast<const char*>(codes + AHEAD), _MM_HINT_T0);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      _mm_prefetch(reinterpret_cast<const char*>(values + r * job.columns + ahead), _MM_HINT_T0);
      row[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + r * job.columns));
    }
    const __m256i ab = _mm256_unpacklo_epi32(row[0], row[1]);
    const __m256i cd = _mm256_unpacklo_epi32(row[2], row[3]);
    const __m256i ab_high = _mm256_unpackhi_epi32(row[0], row[1]);
    const __m256i cd_high = _mm256_unpackhi_epi32(row[2], row[3]);
    word[0] = _mm256_unpacklo_epi64(ab, cd);
    word[1] = _mm256_unpackhi_epi64(ab, cd);
    word[2] = _mm256_unpacklo_epi64(ab_high, cd_high);
    word[3] = _mm256_unpackhi_epi64(ab_high, cd_high);
    const __m128i code = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    const __m256i places = _mm256_srlv_epi32(_mm256_broadcastsi128_si256(code), halves);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const __m256 one = widened<V>(_mm256_slli_epi32(word[k], 16));
      const __m256 two = widened<V>(_mm256_and_si256(word[k], upper));
      const __m256i at_one = _mm256_srli_epi32(places, 4 * k);
      const __m256i at_two = _mm256_srli_epi32(places, 4 * k + 2);
#pragma GCC unroll 8
      for (int t = 0; t < TB; ++t) {
        const __m256 lanes = _mm256_loadu_ps(x[t] + c + 8 * k);
        __m256& a = part[2 * k % PARTS][t];
        a = _mm256_fmadd_ps(one, _mm256_permutevar_ps(lanes, at_one), a);
        __m256& b = part[(2 * k + 1) % PARTS][t];
        b = _mm256_fmadd_ps(two, _mm256_permutevar_ps(lanes, at_two), b);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < TB; ++t) {
#pragma GCC unroll 4
    for (int p = 1; p < PARTS; ++p) part[0][t] = _mm256_add_ps(part[0][t], part[p][t]);
    sums[t] = _mm_add_ps(_mm256_castps256_ps128(part[0][t]),
                         _mm256_extractf128_ps(part[0][t], 1));
  }
}

// TB tokens, `token` and after, of four rows: what y holds is taken on unless first = 0.
template <typename V, int TB>
RAC_INLINE void group_rows(const SparseLinear& job, const float* permuted, int64_t four,
                           int64_t token, int64_t first, int64_t last) {
  const float* x[TB];  // missing tokens repeat the last one
  __m128 sums[TB];
  const int64_t row = 4 * four, rows = std::min<int64_t>(4, job.rows - row);
  float part[4] = {};
  for (int t = 0; t < TB; ++t) {
    const int64_t place = std::min(token + t, job.tokens - 1);
    x[t] = permuted + place * job.columns;
    if (first) std::memcpy(part, job.y + place * job.rows + row, rows * sizeof(float));
    sums[t] = _mm_loadu_ps(part);
  }
  group_tile<V, TB>(job, four, x, first, last, sums);
  for (int t = 0; t < TB && token + t < job.tokens; ++t) {
    _mm_storeu_ps(part, sums[t]);
    for (int r = 0; r < rows; ++r) {
      if (last == job.columns) part[r] = finished<V>(job, row + r, part[r]);
    }
    std::memcpy(job.y + (token + t) * job.rows + row, part, rows * sizeof(float));
  }
}

template <typename V, int TB>
RAC_INLINE void groups(const SparseLinear& job, const LinearScratch& scratch) {
  const bool many = job.tokens > TB;  // then a tile of W is decoded again for every TB tokens
  const int64_t tile = many ? TILE_ROWS : 4;
  const int64_t chunk = many ? TILE_COLUMNS : FEW_X_BYTES / (4 * TB);
  permute_x(job, scratch.panels);
#pragma omp for schedule(static)
  for (int64_t row = 0; row < job.rows; row += tile) {
    const int64_t fours = (std::min(row + tile, job.rows) + 3) / 4;
    for (int64_t first = 0; first < job.columns; first += chunk) {
      const int64_t last = std::min(first + chunk, job.columns);
      for (int64_t token = 0; token < job.tokens; token += TB) {
        for (int64_t four = row / 4; four < fours; ++four) {
          group_rows<V, TB>(job, scratch.panels, four, token, first, last);
        }
      }
    }
  }
}

template <typename V>
RAC_INLINE void groups_of(const SparseLinear& job, const LinearScratch& scratch) {
  if (job.tokens == 1) groups<V, 1>(job, scratch);
  else if (job.tokens == 2) groups<V, 2>(job, scratch);
  else if (job.tokens <= 4) groups<V, 4>(job, scratch);
  else groups<V, 8>(job, scratch);
}
