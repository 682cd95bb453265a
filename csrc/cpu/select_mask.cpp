// Masks: which of the three ways a segment's size calls for.

#include "huge_pages.h"
#include "masks.h"

bool select_mask(const MaskJob& job) {
  if (job.rows == 0 || job.columns == 0) return true;
  // 4 KB at a time, the page faults of what is written take longer than the mask.
  advise_huge_pages(job.keep, job.rows * job.columns);
  if (job.pruned) advise_huge_pages(job.pruned, job.rows * job.columns * (job.dtype == 0 ? 4 : 2));
  const int64_t size = job.together * job.width;
  if (size <= MAX_RANKED && job.together == 1 && job.columns % job.width == 0) {
    return mask_ranked(job);
  }
  const int64_t segments = job.rows / job.together * ((job.columns + job.width - 1) / job.width);
  const int64_t searched = segments >= job.threads ? MANY_SEARCHED : MAX_SEARCHED;
  return size <= searched ? mask_searched(job) : mask_sampled(job);
}
