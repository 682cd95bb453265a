// 2:4 packing on the CPU.
#pragma once

#include "../packing.h"

struct PackJob : Packing {
  int threads;
};

// Pack; returns row * columns + column of the first group that is refused, -1 if none is: one with
// more than two non-zeros or, with prune, with a NaN among its scores.
int64_t pack_2to4(const PackJob& job);

struct UnpackJob : Unpacking {
  int threads;
};

// Unpack; returns the first row whose positions are not two ascending ones a group, -1 if none is.
int64_t unpack_2to4(const UnpackJob& job);
