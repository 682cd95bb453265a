// A 2:4 weight [R, C] as its kernel reads it: strips of 32 rows, a strip in chunks of 128 columns. A
// chunk is, in vectors of 16 bytes for each of 32 lanes,
//     2 s + h, s = 0..3, h = 0..1: the values of columns 32 s .. 32 s + 31 of rows
//     16 h .. 16 h + 15, operand A of one mma.sp.m16n8k32;
//     or of fp8 s: those of both h, half as long;
//     then the metadata, a word for each s: lanes 0 and 1 of four serve the upper product
//     (selector 0), 2 and 3 the lower (selector 1).
// That is 4608 bytes, of fp8 2560. Rows and columns that W has not are zero.
#pragma once

#include "linear_plan.h"

namespace layout_2to4 {

constexpr int CHUNK = 128;
constexpr int VECTORS = 9;  // of 32 lanes x 16 bytes, in a chunk
constexpr int VECTORS_FP8 = 5;

// The vector of 16 bytes, of all of W, that `lane` loads.
BOTH constexpr int64_t weight_vector(int vectors, int64_t strip, int64_t chunks, int64_t chunk,
                                     int vector, int lane) {
  return ((strip * chunks + chunk) * vectors + vector) * 32 + lane;
}

}  // namespace layout_2to4
