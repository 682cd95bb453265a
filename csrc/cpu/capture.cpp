// Append rows to a staging ring: one copy a row.

#include "capture.h"

#include <algorithm>
#include <cstring>

std::vector<uint8_t*> append_rows(const Ring& ring, int64_t batch, int64_t row_bytes) {
  std::vector<uint8_t*> targets;
  if (ring.rows == nullptr) return targets;
  targets.assign(batch, nullptr);
  uint8_t* const half = ring.rows + ring.state[1] * ring.slots * row_bytes;
  int64_t slot = ring.state[0];
  for (int64_t b = 0; b < batch; ++b) {
    if (ring.active != nullptr && ring.active[b] == 0) continue;
    if (slot < ring.slots) targets[b] = half + slot * row_bytes;
    else ++ring.state[3];
    ++slot;
  }
  ring.state[0] = static_cast<int32_t>(slot);
  return targets;
}

void capture(const Ring& ring, const uint8_t* x, int64_t stride_bytes, int64_t batch,
             int64_t row_bytes) {
  const std::vector<uint8_t*> targets = append_rows(ring, batch, row_bytes);
  if (targets.empty()) return;
  for (int64_t b = 0; b < batch; ++b) {
    if (targets[b] != nullptr) std::memcpy(targets[b], x + b * stride_bytes, row_bytes);
  }
}
