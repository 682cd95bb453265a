// Packing of unstructured sparse weights: one pass for the bits, one for the values that they name.

#include "pack_bitmap.h"

#include <cstring>

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

void bitmap_unpack(const BitmapRows& job) {
  const int64_t bytes = (job.columns + 7) / 8;
#pragma omp parallel for schedule(static) num_threads(job.threads)
  for (int64_t row = 0; row < job.rows; ++row) {
    const uint16_t* from = job.values + job.offsets[row];
    uint16_t* to = job.dense + row * job.stride;
    std::memset(to, 0, job.columns * sizeof(uint16_t));
    for (int64_t b = 0; b < bytes; ++b, to += 8) {
      const uint8_t bits = job.bitmap[row * bytes + b];
      const int count = POSITIONS_BITMAP.count[bits];
      for (int i = 0; i < count; ++i) to[POSITIONS_BITMAP.column[bits][i]] = from[i];
      from += count;
    }
  }
}
