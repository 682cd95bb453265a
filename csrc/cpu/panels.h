// Rows of X copied, as float32, into the order in which a matrix product reads them.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "elements.h"
#include "huge_pages.h"
#include "kernels.h"
#include "lanes.h"
#include "team.h"

constexpr int64_t KC = 384;    // rows in a chunk
constexpr int64_t STRIP = 96;  // features packed at a time: whole panels of every width
// Panels of as many chunks as fit are made at a time, at least of one. Few stay in the caches; many
// let several threads wait for each other less often.
constexpr int64_t PANEL_BYTES_ALONE = 4 << 20, PANEL_BYTES_SHARED = 32 << 20;

// Where row i of H begins.
RAC_INLINE float* row_of(const TriangleUpdate& job, int64_t i) {
  if (!job.packed) return job.hessian + i * job.stride_hessian;
  const int64_t block = i / PACKED_ROWS;
  const int64_t width = std::min((block + 1) * PACKED_ROWS, job.features);
  const int64_t before = PACKED_ROWS * PACKED_ROWS * (block * (block + 1) / 2);
  return job.hessian + before + (i - block * PACKED_ROWS) * width;
}

// The rows of x that have a weight.
struct Rows {
  explicit Rows(const TriangleUpdate& job) {
    for (int64_t t = 0; t < job.rows; ++t) {
      if (job.row_weight && job.row_weight[t] == 0.0f) continue;
      index.push_back(t);
      weight.push_back(job.row_weight ? job.row_weight[t] : 1.0f);
      plain = plain && weight.back() == 1.0f;
    }
  }
  int64_t size() const { return static_cast<int64_t>(index.size()); }
  std::vector<int64_t> index;
  std::vector<float> weight;
  bool plain = true;  // all weights are 1
};

struct FreePanels {
  void operator()(void* memory) const { std::free(memory); }
};
using PanelMemory = std::unique_ptr<void, FreePanels>;

// In 2 MB pages where there are such, which cost far fewer page faults.
inline PanelMemory panel_memory(int64_t bytes) {
  const int64_t align = bytes < HUGE_PAGE ? 64 : HUGE_PAGE;
  bytes = (bytes + align - 1) / align * align;
  PanelMemory memory(std::aligned_alloc(align, bytes));
  if (!memory) throw std::bad_alloc();
  advise_huge_pages(memory.get(), bytes);
  return memory;
}

// Memory for the panels of `rows` rows: twice theirs in float32, at most max(32 MB, 3 KB * D).
struct Panels {
  Panels(int64_t features, int64_t count, int threads)
      : padded((features + STRIP - 1) / STRIP * STRIP) {
    const int64_t row_bytes = 2 * padded * static_cast<int64_t>(sizeof(float));
    const int64_t wanted = threads == 1 ? PANEL_BYTES_ALONE : PANEL_BYTES_SHARED;
    rows = std::min(count, std::max<int64_t>(wanted / (KC * row_bytes), 1) * KC);
    memory_ = panel_memory(rows * row_bytes);
    left = static_cast<float*>(memory_.get());
    right = left + rows * padded;
  }
  // Give the memory back to the system; there are no panels any more.
  void release() { release_huge_pages(left, 2 * rows * padded * sizeof(float)); }

  int64_t padded;  // features, up to whole strips
  int64_t rows;    // packed at a time: whole chunks, or all there are
  float *left, *right;  // [chunk][panel][row of the chunk][MR or NR]

 private:
  PanelMemory memory_;
};

// hessian_accumulate of the `rows` of the job, by all threads of a team, which share `panels` and
// `next`, the square of H whose turn it is. Panels of more features than the job's will do.
void hessian_accumulate(const TriangleUpdate& job, const Rows& rows, const Panels& panels,
                        const Team& team, std::atomic<int64_t>& next);

// Panels of a strip of features for `depth` rows, `first` and after, of a chunk that begins
// `offset` rows into the panels. GROUP rows at a time, so that a left panel is written in lines.
template <int L, int MR, int NR, typename T>
RAC_INLINE void pack_strip(const TriangleUpdate& job, const Rows& rows, int64_t first,
                           int64_t depth, int64_t offset, int64_t strip, const Panels& panels) {
  constexpr int64_t GROUP = 8;
  static_assert(STRIP % MR == 0 && STRIP % NR == 0 && NR % L == 0);
  using Storage = typename T::Storage;
  const int64_t columns = std::min(STRIP, job.features - strip * STRIP);
  float* left = panels.left + offset * panels.padded + strip * STRIP * depth;
  float* right = panels.right + offset * panels.padded + strip * STRIP * depth;
  alignas(64) float weighted[GROUP][STRIP];
  Storage padded[STRIP] = {};
  for (int64_t group = 0; group < depth; group += GROUP) {
    const int64_t end = std::min(group + GROUP, depth);
    for (int64_t k = group; k < end; ++k) {
      const auto* x = static_cast<const Storage*>(job.x) + strip * STRIP +
                      rows.index[first + k] * job.stride_x;
      if (columns < STRIP) {
        std::memcpy(padded, x, columns * sizeof(Storage));
        x = padded;
      }
      const float weight = rows.weight[first + k];
#pragma GCC unroll 24
      for (int64_t c = 0; c < STRIP; c += L) {
        const F32<L> value = T::template load<L>(x + c);
        *reinterpret_cast<F32<L>*>(right + (c / NR * depth + k) * NR + c % NR) = value;
        *reinterpret_cast<F32<L>*>(weighted[k - group] + c) = value * weight;
      }
    }
    for (int64_t panel = 0; panel < STRIP / MR; ++panel) {
      float* to = left + (panel * depth + group) * MR;
      for (int64_t k = 0; k < end - group; ++k) {
        std::memcpy(to + k * MR, weighted[k] + panel * MR, MR * sizeof(float));
      }
    }
  }
}
