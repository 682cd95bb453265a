// Linears whose weight stays packed: scratch memory, the instruction set, the threads.

#include "linear_sparse.h"

#include <algorithm>
#include <cstring>

#include "isa.h"
#include "lanes.h"

namespace {

void run(const SparseLinear& job, LinearKernel kernel, int64_t panel_floats) {
  AlignedArray<int64_t> position(job.offsets ? job.rows : 0);
  AlignedArray<float> panels(panel_floats);
  const LinearScratch scratch{position.get(), panel_floats ? panels.get() : nullptr};
#pragma omp parallel num_threads(job.threads)
  kernel(job, scratch);
}

}  // namespace

void linear_few(const SparseLinear& job, bool leave_out_zeros) {
  const bool halves = job.value == Value::BF16 || job.value == Value::FP16;
  const bool permuted = leave_out_zeros && halves && !job.offsets;
  // linear_groups.h, for 256-bit registers, takes half the multiply-adds of few_avx512
  const auto kernel = pick(few_baseline, few_avx2, permuted ? few_avx2 : few_avx512);
  run(job, kernel, permuted ? job.tokens * job.columns : 0);
}

void linear_many(const SparseLinear& job) {
  const int64_t width = panel_width(job.tokens);
  const int64_t tokens = (std::min(GROUP, job.tokens) + width - 1) / width * width;
  run(job, pick(many_baseline, many_avx2, many_avx512), tokens * job.padded);
}

void codes_2to4(const uint8_t* metadata, uint8_t* codes, int64_t rows, int64_t columns,
                int value_bytes, int threads) {
  const int64_t size = value_bytes == 2 ? 2 : 4;     // bytes of a word
  const int64_t group = value_bytes == 2 ? 32 : 16;  // rows dealt out together
  const int64_t words = columns / (size * 8);        // of a row
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t dealt = row / group * group + row % 8 * (group / 8) + row % group / 8;
    uint8_t* to = codes + row / 4 * columns / 2 + row % 4 * 4;
    for (int64_t word = 0; word < words; ++word) {
      // of two words in two rows, those off the diagonal change places
      const int64_t swap = word % 2 - dealt % 2;
      const int64_t to_row = dealt + swap, to_word = word - swap;
      const int64_t from = to_word / 2 * rows * 2 + to_row * 2 + to_word % 2;
      std::memcpy(to + word * size / 4 * 16 + word * size % 4, metadata + from * size, size);
    }
  }
}
