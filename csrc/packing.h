// 2:4 packing, as both modules are asked for it. Addresses are the caller's tensors, on the CPU or on
// a GPU; nothing here owns memory.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "value.h"

// A weight [rows, columns] to values [padded, columns / 2] and metadata [padded, columns / 8 bytes]
// in the order of CUTLASS's ColumnMajorInterleaved<2>.
struct Packing {
  const uint8_t* weight;
  int64_t stride_bytes;  // between rows
  int64_t rows, columns;
  int64_t padded;  // rows, rounded up to 32 (16 for values of a byte)
  uint8_t* values;
  uint8_t* metadata;
  const float* scale;  // [columns] or null; with prune: scores are |w| or |w| * scale
  Value value;
  bool prune;  // keep the two highest scores of every four, ties prune the lowest index
};

// The way back.
struct Unpacking {
  const uint8_t* values;
  const uint8_t* metadata;
  int64_t rows, columns, padded;
  uint8_t* weight;  // [rows, columns]
  Value value;
};

inline void check_packing(int64_t rows, int64_t columns, int64_t padded, int value) {
  if (value < 0 || value > 3) throw std::invalid_argument("packing: dtype out of range");
  const int64_t size = bytes_of(static_cast<Value>(value));
  if (rows < 0 || padded < rows || padded % (16 * size) != 0 || columns < 1 ||
      columns % (64 / size) != 0) {
    throw std::invalid_argument("packing: rows or columns do not make whole tiles of metadata");
  }
}

inline Packing packing_at(uintptr_t weight, int64_t stride_bytes, int64_t rows, int64_t columns,
                          int64_t padded, uintptr_t values, uintptr_t metadata, uintptr_t scale,
                          int value, bool prune) {
  check_packing(rows, columns, padded, value);
  if (prune && value > 1) throw std::invalid_argument("packing: prunes 16-bit values alone");
  return {reinterpret_cast<const uint8_t*>(weight),
          stride_bytes,
          rows,
          columns,
          padded,
          reinterpret_cast<uint8_t*>(values),
          reinterpret_cast<uint8_t*>(metadata),
          reinterpret_cast<const float*>(scale),
          static_cast<Value>(value),
          prune};
}

inline Unpacking unpacking_at(uintptr_t values, uintptr_t metadata, int64_t rows, int64_t columns,
                              int64_t padded, uintptr_t weight, int value) {
  check_packing(rows, columns, padded, value);
  return {reinterpret_cast<const uint8_t*>(values),
          reinterpret_cast<const uint8_t*>(metadata),
          rows,
          columns,
          padded,
          reinterpret_cast<uint8_t*>(weight),
          static_cast<Value>(value)};
}
