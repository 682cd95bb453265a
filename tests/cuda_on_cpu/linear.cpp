// The CUDA linears of csrc/cuda on a CPU, for ctypes.

#include "warp.h"
// After warp.h, which stands for CUDA.
#include "../../csrc/cuda/linear_2to4_kernel.h"
#include "../../csrc/cuda/linear_bitmap_kernel.h"

using namespace linear;

namespace {

template <typename Weight, typename Half>
void kernel_for(const Arguments& in, const Plan& p) {
  if (p.token_tiles == 1) kernel<Weight, Half, 1, 4>(in, p.stages, p.slot);
  else if (p.token_tiles == 2) kernel<Weight, Half, 2, 4>(in, p.stages, p.slot);
  else if (p.token_tiles == 4) kernel<Weight, Half, 4, 4>(in, p.stages, p.slot);
  else if (p.warps == 4) kernel<Weight, Half, 8, 4>(in, p.stages, p.slot);
  else kernel<Weight, Half, 8, 8>(in, p.stages, p.slot);
}

template <typename Weight>
void kernel_of(const Arguments& in, const Plan& plan, int dtype) {
  if (dtype == 1) kernel_for<Weight, BFloat16>(in, plan);
  else kernel_for<Weight, Float16>(in, plan);
}

}  // namespace

extern "C" {

void plan_of(int64_t tokens, int64_t rows, int64_t columns, int chunk, int slot, int sms,
             int shared_block, int shared_sm, int* out) {
  const Plan found = plan(tokens, rows, columns, chunk, slot, {sms, shared_block, shared_sm});
  std::memcpy(out, &found, sizeof(found));
}

// What went wrong, "" if nothing; readable until the next call. `starts` is null for 2:4 weights,
// `x_scale` for those that are not fp8.
const char* run(const void* weight, const uint32_t* starts, const void* x, void* y,
                const float* scale, const float* x_scale, const void* bias, int64_t weight_bytes, int64_t stride,
                int64_t tokens, int64_t rows, int64_t columns, int bias_is_float, const Plan* plan,
                int dtype, unsigned seed, int early) {
  static std::string failure;
  std::vector<float> partials(plan->partials() + 4, NAN);
  std::vector<int> arrived(plan->blocks);
  float* aligned = partials.data();
  while (reinterpret_cast<uintptr_t>(aligned) % 16) ++aligned;
  const Arguments in{weight,  starts,         x,      y,      scale, x_scale, bias,
                     aligned, arrived.data(), stride, tokens, rows,  columns, bias_is_float != 0};
  const auto* bytes = static_cast<const char*>(weight);
  emulated::readable[0] = {bytes, bytes + weight_bytes};
  bytes = static_cast<const char*>(x);
  emulated::readable[1] = {bytes, bytes + 2 * ((tokens - 1) * stride + columns)};
  emulated::early = early != 0;
  failure = emulated::run(plan->blocks, 32 * plan->warps, plan->shared, seed, [&] {
    if (x_scale != nullptr) kernel_of<Weight2to4Fp8>(in, *plan, dtype);
    else if (starts == nullptr) kernel_of<Weight2to4>(in, *plan, dtype);
    else kernel_of<WeightBitmap>(in, *plan, dtype);
  });
  for (int counter : arrived) {
    if (counter != 0 && failure.empty()) failure = "a counter is left above zero";
  }
  return failure.c_str();
}

}
