// Sixteen groups of four at once: a 64-bit word has a nibble for each. A mask has a bit for each of
// the four weights; a positions nibble is the first kept position and, in the upper bits, the
// second. A row of positions is what its metadata is made of.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "isa.h"

constexpr int64_t BLOCK = 64;  // columns of sixteen groups
constexpr uint64_t ONES = 0x1111111111111111u;

// Positions of the two values that are kept where `mask` has the non-zeros; where there are fewer
// than two, those that torch's conversion takes.
RAC_INLINE uint64_t positions_of(uint64_t mask) {
  const uint64_t m0 = mask & ONES, m1 = (mask >> 1) & ONES, m3 = (mask >> 3) & ONES;
  const uint64_t none = ~(m0 | m1) & ONES, both = m0 & m1;
  return (~m0 & m1) | none << 1 | (both | none | m3) << 2 | (both ^ ONES) << 3;
}

// A bit in the nibbles of `mask` that have more than two.
RAC_INLINE uint64_t more_than_two(uint64_t mask) {
  const uint64_t m0 = mask & ONES, m1 = (mask >> 1) & ONES;
  const uint64_t m2 = (mask >> 2) & ONES, m3 = (mask >> 3) & ONES;
  return (m0 & m1 & (m2 | m3)) | (m2 & m3 & (m0 | m1));
}

// A bit in the nibbles whose first position is not below the second.
RAC_INLINE uint64_t not_ascending(uint64_t positions) {
  const uint64_t f0 = positions & ONES, f1 = (positions >> 1) & ONES;
  const uint64_t s0 = (positions >> 2) & ONES, s1 = (positions >> 3) & ONES;
  return ((s1 & ~f1) | (~(s1 ^ f1) & s0 & ~f0)) ^ ONES;
}

// The mask with one bit a nibble, at the position in its lower two bits.
RAC_INLINE uint64_t bit_at(uint64_t positions) {
  const uint64_t p0 = positions & ONES, p1 = (positions >> 1) & ONES;
  const uint64_t n0 = p0 ^ ONES, n1 = p1 ^ ONES;
  return (n1 & n0) | (n1 & p0) << 1 | (p1 & n0) << 2 | (p1 & p0) << 3;
}

// What a byte of positions, two groups, tells a byte shuffle to do.
template <int WIDTH>
using Controls = std::array<std::array<uint8_t, WIDTH>, 256>;

// Of two groups of values of SIZE bytes, those that are kept.
template <int SIZE>
constexpr Controls<4 * SIZE> pack_controls() {
  Controls<4 * SIZE> controls{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int kept = 0; kept < 4; ++kept) {
      for (int i = 0; i < SIZE; ++i) {
        const int from = kept / 2 * 4 + ((byte >> 2 * kept) & 3);
        controls[byte][kept * SIZE + i] = static_cast<uint8_t>(from * SIZE + i);
      }
    }
  }
  return controls;
}

// Of four kept values, two groups of four; 0x80 writes a zero.
template <int SIZE>
constexpr Controls<8 * SIZE> unpack_controls() {
  Controls<8 * SIZE> controls{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < 8 * SIZE; ++i) controls[byte][i] = 0x80;
    for (int kept = 0; kept < 4; ++kept) {
      const int to = kept / 2 * 4 + ((byte >> 2 * kept) & 3);
      for (int i = 0; i < SIZE; ++i) {
        controls[byte][to * SIZE + i] = static_cast<uint8_t>(kept * SIZE + i);
      }
    }
  }
  return controls;
}

// The order of metadata: ROWS rows of COLUMNS columns are 128 bytes, tile after tile of a column of
// tiles. In a tile, each 16 bytes have two words of rows r and r + 8, of both halves of the columns;
// with 32 rows those of r + 16 and r + 24 follow.
template <int SIZE>
struct Tile {
  static constexpr int64_t ROWS = 16 * SIZE;
  static constexpr int64_t COLUMNS = 64 / SIZE;
  static constexpr int64_t BYTES = COLUMNS / 8;  // of a row
};

template <typename Word>
RAC_INLINE Word load_word(const uint8_t* from) {
  Word word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

// words: positions of Tile::ROWS rows from `row` on, `stride` bytes apart.
template <int SIZE>
RAC_INLINE void store_metadata(const uint8_t* words, int64_t stride, int64_t row, int64_t columns,
                               int64_t padded, uint8_t* metadata) {
  using T = Tile<SIZE>;
  for (int64_t tile = 0; tile < columns / T::COLUMNS; ++tile) {
    const uint8_t* from = words + tile * T::BYTES;
    uint64_t out[16];
    for (int64_t r = 0; r < 8; ++r) {
      if constexpr (SIZE == 2) {
        for (int64_t h = 0; h < 2; ++h) {
          const uint8_t* at = from + (r + 16 * h) * stride;
          const uint64_t a = load_word<uint32_t>(at), b = load_word<uint32_t>(at + 8 * stride);
          out[2 * r + h] = (a & 0xffff) | (a >> 16) << 32 | (b & 0xffff) << 16 | (b >> 16) << 48;
        }
      } else {
        const uint64_t a = load_word<uint64_t>(from + r * stride);
        const uint64_t b = load_word<uint64_t>(from + (r + 8) * stride);
        out[2 * r] = (a & 0xffffffff) | b << 32;
        out[2 * r + 1] = a >> 32 | (b >> 32) << 32;
      }
    }
    std::memcpy(metadata + (tile * padded + row) * T::BYTES, out, sizeof(out));
  }
}

// The way back.
template <int SIZE>
RAC_INLINE void load_metadata(const uint8_t* metadata, int64_t row, int64_t columns, int64_t padded,
                              uint8_t* words, int64_t stride) {
  using T = Tile<SIZE>;
  for (int64_t tile = 0; tile < columns / T::COLUMNS; ++tile) {
    uint8_t* to = words + tile * T::BYTES;
    uint64_t in[16];
    std::memcpy(in, metadata + (tile * padded + row) * T::BYTES, sizeof(in));
    for (int64_t r = 0; r < 8; ++r) {
      if constexpr (SIZE == 2) {
        for (int64_t h = 0; h < 2; ++h) {
          const uint64_t both = in[2 * r + h];
          const uint32_t a = (both & 0xffff) | (both >> 16 & 0xffff0000);
          const uint32_t b = (both >> 16 & 0xffff) | (both >> 32 & 0xffff0000);
          std::memcpy(to + (r + 16 * h) * stride, &a, 4);
          std::memcpy(to + (r + 16 * h + 8) * stride, &b, 4);
        }
      } else {
        const uint64_t a = (in[2 * r] & 0xffffffff) | in[2 * r + 1] << 32;
        const uint64_t b = in[2 * r] >> 32 | (in[2 * r + 1] >> 32) << 32;
        std::memcpy(to + r * stride, &a, 8);
        std::memcpy(to + (r + 8) * stride, &b, 8);
      }
    }
  }
}
