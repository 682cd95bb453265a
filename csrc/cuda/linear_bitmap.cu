#include "linear_launch.h"
// After linear_launch.h, for warp.h.
#include "linear_bitmap_kernel.h"

int linear::launch_bitmap(const Arguments& arguments, const Plan& plan, int dtype, void* stream) {
  return launch<WeightBitmap>(arguments, plan, dtype, stream);
}
