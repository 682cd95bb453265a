// Packing of unstructured sparse weights: one pass for the bits, one for the values that they name.

#include "pack_bitmap.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>

#include "isa.h"

#include "linear_tables.h"

namespace {

// Bit i: h[i] is not 0; the sign does not count.
uint8_t nonzero_bits(const uint16_t* h, int count) {
  unsigned bits = 0;
  for (int i = 0; i < count; ++i) bits |= static_cast<unsigned>((h[i] & 0x7fff) != 0) << i;
  return static_cast<uint8_t>(bits);
}

}  // namespace

int64_t bitmap_count(const BitmapRows& job) {
  const int64_t bytes = (job.columns + 7) / 8;
  job.offsets[0] = 0;
#pragma omp parallel for schedule(static) num_threads(job.threads)
  for (int64_t row = 0; row < job.rows; ++row) {
    const uint16_t* from = job.dense + row * job.stride;
    int64_t count = 0;
    for (int64_t b = 0; b < bytes; ++b) {
      const int64_t left = job.columns - 8 * b;
      const uint8_t bits = left >= 8 ? nonzero_bits(from + 8 * b, 8)
                                     : nonzero_bits(from + 8 * b, static_cast<int>(left));
      job.bitmap[row * bytes + b] = bits;
      count += POSITIONS_BITMAP.count[bits];
    }
    job.offsets[row + 1] = count;
  }
  for (int64_t row = 0; row < job.rows; ++row) job.offsets[row + 1] += job.offsets[row];
  return job.offsets[job.rows];
}

void bitmap_pack(const BitmapRows& job) {
  const int64_t bytes = (job.columns + 7) / 8;
#pragma omp parallel for schedule(static) num_threads(job.threads)
  for (int64_t row = 0; row < job.rows; ++row) {
    const uint16_t* from = job.dense + row * job.stride;
    uint16_t* to = job.values + job.offsets[row];
    const uint16_t* end = job.values + job.offsets[row + 1];
    for (int64_t b = 0; b < bytes; ++b, from += 8) {
      const uint8_t bits = job.bitmap[row * bytes + b];
      const uint8_t* column = POSITIONS_BITMAP.column[bits];
      const int count = POSITIONS_BITMAP.count[bits];
      if (end - to >= 8 && 8 * (b + 1) <= job.columns) {  // no branches: more than needed
        for (int i = 0; i < 8; ++i) to[i] = from[column[i]];
      } else {
        for (int i = 0; i < count; ++i) to[i] = from[column[i]];
      }
      to += count;
    }
  }
}

namespace {

#if defined(RAC_VBMI2)
// 32 columns at a time, whose values one instruction spreads out.
RAC_VBMI2 void unpack_row_vbmi2(const uint8_t* bitmap, const uint16_t* from, int64_t columns,
                                uint16_t* to) {
  for (int64_t c = 0; c < columns; c += 32) {
    const int64_t left = std::min<int64_t>(32, columns - c);
    uint32_t bits = 0;
    std::memcpy(&bits, bitmap + c / 8, (left + 7) / 8);
    const int count = __builtin_popcount(bits);
    const auto read = static_cast<__mmask32>((1ull << count) - 1);
    const auto written = static_cast<__mmask32>((1ull << left) - 1);
    const __m512i values = _mm512_maskz_loadu_epi16(read, from);
    _mm512_mask_storeu_epi16(to + c, written, _mm512_maskz_expand_epi16(bits, values));
    from += count;
  }
}
#endif

void unpack_row(const uint8_t* bitmap, const uint16_t* from, int64_t columns, uint16_t* to) {
  std::memset(to, 0, columns * sizeof(uint16_t));
  for (int64_t c = 0; c < columns; c += 8, ++bitmap, to += 8) {
    const int count = POSITIONS_BITMAP.count[*bitmap];
    for (int i = 0; i < count; ++i) to[POSITIONS_BITMAP.column[*bitmap][i]] = from[i];
    from += count;
  }
}

}  // namespace

void bitmap_unpack(const BitmapRows& job) {
  const int64_t bytes = (job.columns + 7) / 8;
  auto unpack = unpack_row;
#if defined(RAC_VBMI2)
  if (current_isa() >= Isa::AVX512_BF16) unpack = unpack_row_vbmi2;
#endif
#pragma omp parallel for schedule(static) num_threads(job.threads)
  for (int64_t row = 0; row < job.rows; ++row) {
    unpack(job.bitmap + row * bytes, job.values + job.offsets[row], job.columns,
           job.dense + row * job.stride);
  }
}
