// A sparse weight [R, C] as its kernel reads it: strips of 32 rows, a strip in chunks of 64
// columns, a chunk in 32 groups of 64 weights, operand by operand of mma.m16n8k16:
//     group 8 s + 4 h + r, s = 0..3, h = 0..1: register r of columns 16 s .. 16 s + 15 and rows
//     16 h .. 16 h + 15; weight 2 l + e of it is element e of lane l.
// A chunk is, in vectors of 16 bytes,
//     16 of bits: 32 words for lanes 0..15, a group each, then 32 for lanes 16..31;
//     4 of counts: for each group two bytes, the values of lanes 0..15, and of all lanes;
//     then the values, group after group, padded with zeros to a whole vector.
// Rows and columns that W has not are zero, and take bits and no values.
#pragma once

#include "linear_plan.h"

namespace layout_bitmap {

constexpr int CHUNK = 64;
constexpr int GROUPS = 32;
constexpr int COUNTS = 16;  // the vector where counts begin
constexpr int VALUES = 20;  // the vector where values begin

}  // namespace layout_bitmap
