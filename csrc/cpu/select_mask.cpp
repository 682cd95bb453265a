// Masks: which of the three ways a segment's size calls for.

#include "masks.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

constexpr uintptr_t HUGE_PAGE = 2 << 20;

// A new tensor's pages appear when they are first written, and 4 KB at a time that takes longer
// than the mask. A hint: where it is not taken, nothing changes.
void ask_for_huge_pages(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t start = (reinterpret_cast<uintptr_t>(memory) + HUGE_PAGE - 1) & -HUGE_PAGE;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) & -HUGE_PAGE;
  if (memory && end > start) madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
#endif
}

}  // namespace

bool select_mask(const MaskJob& job) {
  if (job.rows == 0 || job.columns == 0) return true;
  ask_for_huge_pages(job.keep, job.rows * job.columns);
  ask_for_huge_pages(job.pruned, job.rows * job.columns * (job.dtype == 0 ? 4 : 2));
  const int64_t size = job.together * job.width;
  if (size <= MAX_RANKED && job.together == 1 && job.columns % job.width == 0) {
    return mask_ranked(job);
  }
  const int64_t segments = job.rows / job.together * ((job.columns + job.width - 1) / job.width);
  const int64_t searched = segments >= job.threads ? MANY_SEARCHED : MAX_SEARCHED;
  return size <= searched ? mask_searched(job) : mask_sampled(job);
}
