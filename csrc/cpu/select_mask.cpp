// Masks: which of the three ways a segment's size calls for.

#include "masks.h"

bool select_mask(const MaskJob& job) {
  if (job.rows == 0 || job.columns == 0) return true;
  const int64_t size = job.together * job.width;
  if (size <= MAX_RANKED && job.together == 1 && job.columns % job.width == 0) {
    return mask_ranked(job);
  }
  return size <= MAX_SEARCHED ? mask_searched(job) : mask_sampled(job);
}
