// linear_sparse by AMX, whose tiles multiply 16 rows of W with 16 tokens, 32 columns at a time, and
// add to float32 sums; for x in bf16 or rounded to e4m3, and more than a few tokens.
//
// A thread takes 16 rows and decodes DECODED columns of them to bf16 in the L1 cache while it multiplies
// those before with up to 64 tokens, whose sums stay in tiles. A product of bf16 is exact; subnormal
// numbers are taken for 0.

#include "linear_sparse.h"

#include "isa.h"

#if defined(RAC_HAS_AMX)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

// What follows is compiled for these; what is included above is not, since the linker may share it.
#if defined(RAC_EMULATED_AVX512)  // where the tests have none
#pragma GCC target("avx2,fma,popcnt,bmi,bmi2")
#else
#pragma GCC target( \
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,amx-tile,amx-bf16,fma,popcnt,bmi,bmi2")
#endif

#include "amx.h"
#include "tiles_arrange.h"
#include "tiles_decode.h"

namespace {

constexpr int64_t X_BYTES = 1 << 20;  // of x, that stay in the L2 cache while W is read once

// Sums of B times 16 tokens are in tiles 0 to B - 1.

// The sums += a tile of W times 16 B tokens, x being [B][16 pairs of columns][16 tokens][2].
template <int B>
RAC_INLINE void multiply_tile(const uint16_t* weight, const uint16_t* x) {
  constexpr int64_t SIZE = SIDE * DEPTH;
  _tile_loadd(4, weight, 64);
  _tile_loadd(5, x, 64);
  _tile_dpbf16ps(0, 4, 5);
  if constexpr (B > 1) {
    _tile_loadd(6, x + SIZE, 64);
    _tile_dpbf16ps(1, 4, 6);
  }
  if constexpr (B > 2) {
    _tile_loadd(5, x + 2 * SIZE, 64);
    _tile_dpbf16ps(2, 4, 5);
    _tile_loadd(6, x + 3 * SIZE, 64);
    _tile_dpbf16ps(3, 4, 6);
  }
}

template <int B>
RAC_INLINE void zero_tiles() {
  _tile_zero(0);
  if constexpr (B > 1) _tile_zero(1);
  if constexpr (B > 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
}

template <int B>
RAC_INLINE void store_tiles(float (&sums)[B][SIDE][SIDE]) {
  _tile_stored(0, sums[0], 64);
  if constexpr (B > 1) _tile_stored(1, sums[1], 64);
  if constexpr (B > 2) {
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
  }
}

template <typename T>
RAC_INLINE void store_rows(typename T::Storage* to, const float (&y)[SIDE], int64_t rows) {
  const F32<16> lanes = Float::load<16>(y);
  if (rows == SIDE) T::template store<16>(to, lanes);
  else store_first<16, T>(to, lanes, rows);
}

// y[token : token + 16, row : row + rows] of sums [16 rows][16 tokens].
RAC_INLINE void finish_tile(const SparseLinear& job, float factor, const float* x_scale, int64_t row,
                            int64_t rows, int64_t token, const float (&sums)[SIDE][SIDE]) {
  alignas(64) float by_token[SIDE][SIDE];
  for (int64_t r = 0; r < SIDE; r += 4) {
    for (int64_t t = 0; t < SIDE; t += 4) {
      transpose_4x4(&sums[r][t], SIDE, &by_token[t][r], SIDE);
    }
  }
  float scale[SIDE], bias[SIDE];
  for (int64_t r = 0; r < SIDE; ++r) {
    scale[r] = job.scale && r < rows ? job.scale[row + r] : 1.0f;
    bias[r] = job.bias && r < rows ? job.bias[row + r] : 0.0f;
  }
  const int64_t tokens = std::min(SIDE, job.tokens - token);
  for (int64_t t = 0; t < tokens; ++t) {
    const float token_scale = job.rounds_x ? x_scale[token + t] : 1.0f;
    alignas(64) float y[SIDE];
    for (int64_t r = 0; r < SIDE; ++r) {
      y[r] = by_token[t][r] * factor * scale[r] * token_scale;
      if (job.bias) y[r] += bias[r];
    }
    const int64_t at = (token + t) * job.rows + row;
    if (job.rounded) store_rows<BFloat16>(job.rounded + at, y, rows);
    else store_rows<Float>(job.y + at, y, rows);
  }
}

// Rows [row, row + 16) of W with 16 B tokens. `tiles` has room for what is decoded and for what was
// decoded before, which is multiplied meanwhile.
template <int B, typename Decoder>
RAC_INLINE void multiply_rows(const SparseLinear& job, const LinearScratch& scratch, float factor,
                              int64_t row, int64_t token, const uint16_t* x,
                              uint16_t (&tiles)[2][SIDE * DECODED]) {
  const int64_t rows = std::min(SIDE, job.rows - row);
  if (rows < SIDE) std::memset(tiles, 0, sizeof(tiles));
  NextValues next = {};
  for (int64_t r = 0; job.offsets && r < rows; ++r) {
    next[r] = job.values + 2 * job.offsets[row + r];
  }
  before_tile_loads();
  zero_tiles<B>();
  int64_t decoded = 0;  // tiles that are to be multiplied
  const uint16_t* from = tiles[1];
  const auto multiply = [&](int64_t i) {
    if (i < decoded) multiply_tile<B>(from + i * SIDE * DEPTH, x + i * B * SIDE * DEPTH);
  };
  uint16_t* to = tiles[0];
  for (int64_t begin = 0; begin < job.columns; begin += DECODED) {
    const int64_t end = std::min(begin + DECODED, job.columns);
    Decoder::decode(job, row, rows, begin, end, next, to, multiply);
    before_tile_loads();
    x += decoded * B * SIDE * DEPTH;
    decoded = (end - begin + DEPTH - 1) / DEPTH;
    from = to;
    to = to == tiles[0] ? tiles[1] : tiles[0];
  }
  for (int64_t i = 0; i < TILES; ++i) multiply(i);
  alignas(64) float sums[B][SIDE][SIDE];
  store_tiles<B>(sums);
  for (int b = 0; b < B; ++b) {
    const int64_t first = token + b * SIDE;
    if (first < job.tokens) {
      finish_tile(job, factor, scratch.x_scale, row, rows, first, sums[b]);
    }
  }
}

template <int B, typename Decoder>
RAC_INLINE void multiply_all(const SparseLinear& job, const LinearScratch& scratch, float factor) {
  const auto* panels = reinterpret_cast<const uint16_t*>(scratch.panels);
  alignas(64) uint16_t tiles[2][SIDE * DECODED];
  const int64_t tokens = B * SIDE;
  const int64_t part = std::max<int64_t>(X_BYTES / (2 * job.padded) / tokens, 1) * tokens;
  _tile_loadconfig(&TILE_SHAPES);
  for (int64_t begin = 0; begin < job.tokens; begin += part) {
    const int64_t end = std::min(begin + part, job.tokens);
#pragma omp for schedule(static) nowait
    for (int64_t row = 0; row < job.rows; row += SIDE) {
      for (int64_t token = begin; token < end; token += tokens) {
        multiply_rows<B, Decoder>(job, scratch, factor, row, token, panels + token * job.padded,
                                  tiles);
      }
    }
  }
  _tile_release();
}

template <typename Decoder>
RAC_INLINE void multiply_with(const SparseLinear& job, const LinearScratch& scratch,
                              float factor = 1.0f) {
  const int64_t at_once = tokens_at_once(job);
  if (at_once == SIDE) multiply_all<1, Decoder>(job, scratch, factor);
  else if (at_once == 2 * SIDE) multiply_all<2, Decoder>(job, scratch, factor);
  else multiply_all<4, Decoder>(job, scratch, factor);
}

}  // namespace

void arrange_tiles(const SparseLinear& job, const LinearScratch& scratch, int64_t group) {
  arrange(job, scratch, group);
}

void linear_tiles(const SparseLinear& job, const LinearScratch& scratch) {
  if (!job.codes) multiply_with<DenseTiles>(job, scratch);
  else if (job.offsets) multiply_with<BitmapTiles>(job, scratch);
  else if (job.value == Value::BFLOAT16) multiply_with<Tiles2to4<2>>(job, scratch);
  else multiply_with<Tiles2to4<1>>(job, scratch, E4M3_DIVISOR);
}

void unpack_four_rows(const LinearWeight& weight, int64_t row, uint16_t* dense) {
  SparseLinear job{};
  job.values = weight.values;
  job.codes = weight.codes;
  job.columns = weight.columns;
  for (int64_t c = 0; c < job.columns; c += DECODED) {
    const int64_t count = std::min(TILES, (job.columns - c) / DEPTH);
    spread_rows<2, DEPTH>(job, row, c, count, dense + c, job.columns);
  }
}

#else

#include <cstdlib>

// There is no such level then, so that nobody calls these.
void arrange_tiles(const SparseLinear&, const LinearScratch&, int64_t) { std::abort(); }
void linear_tiles(const SparseLinear&, const LinearScratch&) { std::abort(); }
void unpack_four_rows(const LinearWeight&, int64_t, uint16_t*) { std::abort(); }

#endif
