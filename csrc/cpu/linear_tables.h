// What a byte of a bitmap means, as tables.
#pragma once

#include <cstdint>

// For each byte: which of its eight columns have values, in order.
struct Positions {
  alignas(8) uint8_t column[256][8];
  uint8_t count[256];
};

constexpr Positions make_positions() {
  Positions table{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < 8; ++i) {
      if (byte >> i & 1) table.column[byte][table.count[byte]++] = static_cast<uint8_t>(i);
    }
  }
  return table;
}

constexpr Positions POSITIONS_BITMAP = make_positions();

// Byte shuffles (vpshufb; 0x80 gives 0) from 16-bit values, the same 16 bytes in both halves, to
// eight 32-bit words whose upper halves are the value of a column, or 0.
struct Shuffles {
  alignas(32) uint8_t bytes[256][32];
};

constexpr Shuffles make_shuffles() {
  Shuffles table{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < 32; ++i) table.bytes[byte][i] = 0x80;
    for (int k = 0; k < POSITIONS_BITMAP.count[byte]; ++k) {
      const int to = 4 * POSITIONS_BITMAP.column[byte][k] + 2;
      table.bytes[byte][to] = static_cast<uint8_t>(2 * k);
      table.bytes[byte][to + 1] = static_cast<uint8_t>(2 * k + 1);
    }
  }
  return table;
}

constexpr Shuffles SHUFFLES_BITMAP = make_shuffles();
