// 2:4 packing on a GPU. Addresses are device addresses; nothing here owns memory. Kernels run on
// `stream` of the current device. Functions return a cudaError_t: 0 when the launch was accepted.
#pragma once

#include <cstdint>

#include "../value.h"

// Arguments of a packing: a weight [rows, columns] to values [padded, columns / 2] and metadata
// [padded, columns / 8 bytes] in the order of CUTLASS's ColumnMajorInterleaved<2>.
struct CudaPack {
  const uint8_t* weight;  // on 16 bytes, as its rows are
  int64_t stride_bytes;   // between rows
  int64_t rows, columns;
  int64_t padded;  // rows, rounded up to 32 (16 for values of a byte)
  uint8_t* values;
  uint8_t* metadata;
  const float* scale;  // [columns] or null; with prune: scores are |w| or |w| * scale
  Value value;
  bool prune;      // keep the two highest scores of every four, ties prune the lowest index
  int64_t* first;  // lowered to row * columns + column of a group that is refused: one with more
                   // than two non-zeros or, with prune, with a NaN among its scores
  void* stream;
};

int pack_2to4_cuda(const CudaPack& job);

// Arguments of the way back.
struct CudaUnpack {
  const uint8_t* values;
  const uint8_t* metadata;
  int64_t rows, columns, padded;
  uint8_t* weight;  // [rows, columns]
  Value value;
  int64_t* first;  // lowered to a row whose positions are not two ascending ones a group
  void* stream;
};

int unpack_2to4_cuda(const CudaUnpack& job);
