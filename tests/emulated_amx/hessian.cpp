// The rank-k update by AMX on any CPU, for ctypes.

#include "amx.h"
// After amx.h.
#include "../../csrc/cpu/hessian_amx.cpp"

extern "C" void run(float* hessian, int64_t stride_hessian, int packed, const void* x,
                    int64_t stride_x, const float* row_weight, int64_t rows, int64_t features,
                    int threads) {
  const TriangleUpdate job{hessian,    stride_hessian, packed != 0, x,      stride_x, 1,
                           row_weight, rows,           features,    threads};
  hessian_accumulate_amx(job, Rows(job));
}
