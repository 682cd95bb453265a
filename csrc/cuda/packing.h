// 2:4 packing on a GPU. Kernels run on `stream` of the current device. Functions return a
// cudaError_t: 0 when the launch was accepted.
#pragma once

#include "../packing.h"

struct CudaPack : Packing {  // weight on 16 bytes, as its rows are
  int64_t* first;  // lowered to row * columns + column of a group that is refused: one with more
                   // than two non-zeros or, with prune, with a NaN among its scores
  void* stream;
};

int pack_2to4_cuda(const CudaPack& job);

struct CudaUnpack : Unpacking {
  int64_t* first;  // lowered to a row whose positions are not two ascending ones a group
  void* stream;
};

int unpack_2to4_cuda(const CudaUnpack& job);
