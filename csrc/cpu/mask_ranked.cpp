// n of every m neighbours of a row, m small: every key is ranked among its group's.
//
// One read, one write. For m = 4 a group is six compares and its mask one word, which the compiler
// makes vectors of; for any other m the lanes of a vector are groups (lanes.h).

#include <algorithm>

#include "lanes.h"
#include "mask_keys.h"

namespace {

constexpr int64_t SPAN = 4096;  // keys worked on at a time: half of a first cache

template <int L>
struct Scratch {
  explicit Scratch(int64_t m) : keys(SPAN), columns(m), pruned(m) {}
  AlignedArray<int32_t> keys;  // of a span
  AlignedArray<I32<L>> columns;
  AlignedArray<I32<L>> pruned;
};

// keep[4 g + i] for groups of four keys, as words of four bytes: the first is the lowest.
RAC_INLINE void keep_of_four(const int32_t* __restrict keys, int64_t groups, int32_t n,
                             uint8_t* keep) {
  uint32_t* __restrict words = reinterpret_cast<uint32_t*>(keep);
  for (int64_t g = 0; g < groups; ++g) {
    const int32_t a = keys[4 * g], b = keys[4 * g + 1], c = keys[4 * g + 2], d = keys[4 * g + 3];
    const int32_t ba = b < a, ca = c < a, da = d < a, cb = c < b, db = d < b, dc = d < c;
    const uint32_t keep_a = ba + ca + da >= n, keep_b = 1 - ba + cb + db >= n;
    const uint32_t keep_c = 2 - ca - cb + dc >= n, keep_d = 3 - da - db - dc >= n;
    words[g] = keep_a | keep_b << 8 | keep_c << 16 | keep_d << 24;
  }
}

template <int L>
RAC_INLINE void keep_of_many(Scratch<L>& scratch, int64_t groups, int m, int n, uint8_t* keep) {
  for (int64_t first = 0; first < groups; first += L) {
    const int64_t lanes = std::min<int64_t>(L, groups - first);
    // Keys are moved, never computed with: the float transpose carries any bits.
    load_columns<L>(reinterpret_cast<const float*>(scratch.keys.get() + first * m), m, lanes, m,
                    reinterpret_cast<F32<L>*>(scratch.columns.get()));
    prune_lowest<L>(scratch.columns.get(), m, n, scratch.pruned.get());
    store_keep<L>(scratch.pruned.get(), 1, lanes, m, keep + first * m, m);
  }
}

// All spans, split among the threads of the enclosing parallel region; true if a score is NaN.
template <int L>
RAC_INLINE bool rank_spans(const MaskJob& job) {
  const int m = static_cast<int>(job.width), n = static_cast<int>(job.count);
  Scratch<L> scratch(m);
  const int64_t span = std::max<int64_t>(SPAN / m, 1) * m;
  const int64_t spans = (job.columns + span - 1) / span;
  bool nan = false;
#pragma omp for schedule(static) nowait
  for (int64_t unit = 0; unit < job.rows * spans; ++unit) {
    const int64_t row = unit / spans, column = unit % spans * span;
    const int64_t count = std::min(span, job.columns - column);
    nan |= read_keys(job, row, column, count, scratch.keys.get());
    uint8_t* keep = job.keep + row * job.columns + column;
    if (m == 4) keep_of_four(scratch.keys.get(), count / 4, n, keep);
    else keep_of_many<L>(scratch, count / m, m, n, keep);
    write_pruned<uint8_t>(job, row, column, count, keep, 1);
  }
  return nan;
}

bool rank_baseline(const MaskJob& job) { return rank_spans<4>(job); }
RAC_AVX2 bool rank_avx2(const MaskJob& job) { return rank_spans<8>(job); }
RAC_AVX512 bool rank_avx512(const MaskJob& job) { return rank_spans<16>(job); }

}  // namespace

bool mask_ranked(const MaskJob& job) {
  MaskJob flat = job;
  if (job.stride == job.columns && job.score != MaskScore::WANDA) {  // groups need no rows
    flat.columns = flat.stride = job.rows * job.columns;
    flat.rows = 1;
  }
  const auto run = pick(rank_baseline, rank_avx2, rank_avx512);
  bool nan = false;
#pragma omp parallel num_threads(job.threads) reduction(|| : nan)
  nan = run(flat);
  return !nan;
}
