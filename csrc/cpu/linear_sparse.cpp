// Linears whose weight stays packed: scratch memory, the instruction set, the threads.

#include "linear_sparse.h"

#include <algorithm>
#include <cstring>

#include "isa.h"
#include "lanes.h"

namespace {

void run(const SparseLinear& job, LinearKernel kernel, const LinearScratch& scratch) {
#pragma omp parallel num_threads(job.threads)
  kernel(job, scratch);
}

}  // namespace

void linear_few(const SparseLinear& job) {
  const int64_t tokens = job.tokens > 1 ? (job.tokens + 3) / 4 * 4 : 0;
  AlignedArray<float> panels(tokens * job.padded);
  run(job, pick(few_baseline, few_avx2, few_avx512), {nullptr, panels.get()});
}

void linear_many(const SparseLinear& job) {
  const int64_t width = panel_width(job.tokens);
  const int64_t tokens = (std::min(GROUP, job.tokens) + width - 1) / width * width;
  AlignedArray<int64_t> position(job.offsets ? job.rows : 0);
  AlignedArray<float> panels(tokens * job.padded);
  run(job, pick(many_baseline, many_avx2, many_avx512), {position.get(), panels.get()});
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
