// 2:4 packing. Addresses are the caller's tensors; nothing here owns memory.
#pragma once

#include <cstdint>

#include "../value.h"

// Arguments of a packing: a weight [rows, columns] to values [padded, columns / 2] and metadata
// [padded, columns / 8 bytes] in the order of CUTLASS's ColumnMajorInterleaved<2>.
struct PackJob {
  const uint8_t* weight;
  int64_t stride_bytes;  // between rows
  int64_t rows, columns;
  int64_t padded;  // rows, rounded up to 32 (16 for values of a byte)
  uint8_t* values;
  uint8_t* metadata;
  const float* scale;  // [columns] or null; with prune: scores are |w| or |w| * scale
  Value value;
  bool prune;  // keep the two highest scores of every four, ties prune the lowest index
  int threads;
};

// Pack; returns row * columns + column of the first group that is refused, -1 if none is: one with
// more than two non-zeros or, with prune, with a NaN among its scores.
int64_t pack_2to4(const PackJob& job);

// Arguments of the way back.
struct UnpackJob {
  const uint8_t* values;
  const uint8_t* metadata;
  int64_t rows, columns, padded;
  uint8_t* weight;  // [rows, columns]
  Value value;
  int threads;
};

// Unpack; returns the first row whose positions are not two ascending ones a group, -1 if none is.
int64_t unpack_2to4(const UnpackJob& job);
