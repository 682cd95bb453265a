#include "linear_launch.h"
// After linear_launch.h, for warp.h.
#include "linear_2to4_kernel.h"

int linear::launch_2to4_fp8(const Arguments& arguments, const Plan& plan, int dtype,
                            void* stream) {
  return launch<Weight2to4Fp8>(arguments, plan, dtype, stream);
}
