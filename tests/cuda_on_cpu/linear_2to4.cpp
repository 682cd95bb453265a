// csrc/cuda/linear_2to4_kernel.h on a CPU, for ctypes.

#include "warp.h"
// After warp.h, which stands for CUDA.
#include "../../csrc/cuda/linear_2to4_kernel.h"

using namespace linear_2to4;

namespace {

template <typename Half>
void kernel_for(const Arguments& in, const Plan& plan) {
  if (plan.token_tiles == 1) kernel<Half, 1, 4>(in, plan.stages);
  else if (plan.token_tiles == 2) kernel<Half, 2, 4>(in, plan.stages);
  else if (plan.token_tiles == 4) kernel<Half, 4, 4>(in, plan.stages);
  else if (plan.warps == 4) kernel<Half, 8, 4>(in, plan.stages);
  else kernel<Half, 8, 8>(in, plan.stages);
}

}  // namespace

extern "C" {

void plan_of(int64_t tokens, int64_t rows, int64_t columns, int sms, int shared_block,
             int shared_sm, int* out) {
  const Plan found = plan(tokens, rows, columns, sms, shared_block, shared_sm);
  const int fields[] = {found.token_tiles, found.warps, found.stages, found.blocks, found.shared};
  std::memcpy(out, fields, sizeof(fields));
}

// What went wrong, "" if nothing; readable until the next call.
const char* run(const void* weight, const void* x, void* y, const float* scale, const void* bias,
                int64_t weight_bytes, int64_t stride, int64_t tokens, int64_t rows, int64_t columns,
                int bias_is_float, const int* fields, int dtype, unsigned seed, int early) {
  static std::string failure;
  const Plan plan{fields[0], fields[1], fields[2], fields[3], fields[4]};
  std::vector<float> partials(plan.partials() + 4, NAN);
  std::vector<int> arrived(plan.blocks);
  float* aligned = partials.data();
  while (reinterpret_cast<uintptr_t>(aligned) % 16) ++aligned;
  const Arguments in{weight, x,      y,      scale, bias,    aligned,           arrived.data(),
                     stride, tokens, rows, columns, bias_is_float != 0};
  const auto* bytes = static_cast<const char*>(weight);
  emulated::readable[0] = {bytes, bytes + weight_bytes};
  bytes = static_cast<const char*>(x);
  emulated::readable[1] = {bytes, bytes + 2 * ((tokens - 1) * stride + columns)};
  emulated::early = early != 0;
  failure = emulated::run(plan.blocks, 32 * plan.warps, plan.shared, seed, [&] {
    if (dtype == 1) kernel_for<BFloat16>(in, plan);
    else kernel_for<Float16>(in, plan);
  });
  for (int counter : arrived) {
    if (counter != 0 && failure.empty()) failure = "a counter is left above zero";
  }
  return failure.c_str();
}

}
