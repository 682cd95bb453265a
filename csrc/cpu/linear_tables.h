// What a byte of codes means, as tables.
#pragma once

#include <cstdint>

// For a byte: which of its eight columns have values, in order.
struct Columns {
  uint8_t count;
  uint8_t column[8];
};

// 2:4: a nibble holds the two positions in its group of four.
constexpr Columns columns_2to4(int byte) {
  Columns found{4, {}};
  for (int i = 0; i < 4; ++i) {
    found.column[i] = static_cast<uint8_t>(i / 2 * 4 + (byte >> 2 * i & 3));
  }
  return found;
}

constexpr Columns columns_bitmap(int byte) {
  Columns found{0, {}};
  for (int i = 0; i < 8; ++i) {
    if (byte >> i & 1) found.column[found.count++] = static_cast<uint8_t>(i);
  }
  return found;
}

// Byte shuffles (vpshufb; 0x80 gives 0) from 16-bit values, the same 16 bytes in both halves, to
// eight 32-bit words whose upper halves are the value of a column, or 0.
struct Shuffles {
  alignas(32) uint8_t bytes[256][32];
};

// Positions of the values of each byte, [256][8].
struct Positions {
  alignas(8) uint8_t column[256][8];
  uint8_t count[256];
};

constexpr Shuffles make_shuffles() {
  Shuffles table{};
  for (int byte = 0; byte < 256; ++byte) {
    const Columns found = columns_bitmap(byte);
    for (int i = 0; i < 32; ++i) table.bytes[byte][i] = 0x80;
    for (int k = 0; k < found.count; ++k) {
      table.bytes[byte][4 * found.column[k] + 2] = static_cast<uint8_t>(2 * k);
      table.bytes[byte][4 * found.column[k] + 3] = static_cast<uint8_t>(2 * k + 1);
    }
  }
  return table;
}

template <typename Meaning>
constexpr Positions make_positions(Meaning columns_of) {
  Positions table{};
  for (int byte = 0; byte < 256; ++byte) {
    const Columns found = columns_of(byte);
    for (int k = 0; k < 8; ++k) table.column[byte][k] = found.column[k];
    table.count[byte] = found.count;
  }
  return table;
}

constexpr Shuffles SHUFFLES_BITMAP = make_shuffles();
constexpr Positions POSITIONS_2TO4 = make_positions(columns_2to4);
constexpr Positions POSITIONS_BITMAP = make_positions(columns_bitmap);
