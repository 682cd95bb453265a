// A share of each row, or of each small block of columns: the keys of a segment are read into a
// cache once, searched there, and the segment is written.

#include <algorithm>
#include <limits>

#include "lanes.h"
#include "mask_keys.h"
#include "search_keys.h"

namespace {

RAC_INLINE Selection choose(const int32_t* keys, int64_t size, int64_t count, Hint& hint,
                            int32_t* scratch) {
  if (count <= 0) return {std::numeric_limits<int32_t>::min(), -1};
  if (count >= size) return {INFINITE, std::numeric_limits<int64_t>::max() - 1};
  return search_keys(keys, size, count, hint, scratch);
}

// All segments, split among the threads of the enclosing parallel region; true if a score is NaN.
RAC_INLINE bool search_segments(const MaskJob& job) {
  const int64_t size = job.together * job.width;
  AlignedArray<int32_t> keys(size), scratch(few_of(size) + 1);
  const int64_t across = (job.columns + job.width - 1) / job.width;
  Hint hint;
  bool nan = false;
#pragma omp for schedule(static) nowait
  for (int64_t segment = 0; segment < job.rows / job.together * across; ++segment) {
    const int64_t row = segment / across * job.together, column = segment % across * job.width;
    const int64_t width = std::min(job.width, job.columns - column);
    for (int64_t r = 0; r < job.together; ++r) {
      nan |= read_keys(job, row + r, column, width, keys.get() + r * width);
    }
    const int64_t count = column + job.width >= job.columns ? job.last_count : job.count;
    const Selection chosen =
        choose(keys.get(), job.together * width, count, hint, scratch.get());
    for (int64_t r = 0; r < job.together; ++r) {
      const int32_t* own = keys.get() + r * width;
      write_selected(job, row + r, column, width, own, r * width, chosen);
    }
  }
  return nan;
}

bool search_baseline(const MaskJob& job) { return search_segments(job); }
RAC_AVX2 bool search_avx2(const MaskJob& job) { return search_segments(job); }
RAC_AVX512 bool search_avx512(const MaskJob& job) { return search_segments(job); }

}  // namespace

bool mask_searched(const MaskJob& job) {
  const auto run = pick(search_baseline, search_avx2, search_avx512);
  bool nan = false;
#pragma omp parallel num_threads(job.threads) reduction(|| : nan)
  nan = run(job);
  return !nan;
}
