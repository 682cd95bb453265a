// n:m masks: prune the n lowest of every m neighbours, ties by lowest index.
//
// One read, one write. L groups are the lanes of a vector; scores become integers that order as
// the floats do (-0.0 as 0.0), so one kernel serves float32, bfloat16 and float16.

#include <algorithm>

#include "kernels.h"
#include "lanes.h"

namespace {

struct Float32 {
  using Storage = uint32_t;
  RAC_INLINE int32_t key(uint32_t bits) {
    const int32_t value = bits == 0x80000000u ? 0 : static_cast<int32_t>(bits);
    return value ^ ((value >> 31) & 0x7fffffff);
  }
};

// bfloat16 and float16 alike: sign and magnitude in 16 bits.
struct Float16 {
  using Storage = uint16_t;
  RAC_INLINE int32_t key(uint16_t bits) {
    const int32_t value = bits == 0x8000u ? 0 : static_cast<int16_t>(bits);
    return value ^ ((value >> 31) & 0x7fff);
  }
};

template <int L>
struct Scratch {
  explicit Scratch(int m) : rows(L * m), keys(m), pruned(m) {}
  AlignedArray<int32_t> rows;  // [L][m]
  AlignedArray<I32<L>> keys;
  AlignedArray<I32<L>> pruned;
};

// The constant M is known to the compiler for the common patterns, 0 for any other.
template <int L, typename Dtype, int M>
RAC_INLINE void mask_tile(const MaskJob& job, int64_t first, int64_t groups, Scratch<L>& scratch) {
  const int m = M > 0 ? M : job.m;
  const auto* from = static_cast<const typename Dtype::Storage*>(job.scores) + first * m;
  for (int64_t i = 0; i < groups * m; ++i) scratch.rows[i] = Dtype::key(from[i]);
  // Keys are moved, never computed with: the float transpose carries any bits.
  load_columns<L>(reinterpret_cast<const float*>(scratch.rows.get()), m, groups, m,
                  reinterpret_cast<F32<L>*>(scratch.keys.get()));
  prune_lowest<L>(scratch.keys.get(), m, job.n, scratch.pruned.get());
  store_keep<L>(scratch.pruned.get(), groups, m, job.keep + first * m, m);
}

template <int L>
RAC_INLINE void mask_tile_of(const MaskJob& job, int64_t first, int64_t groups,
                             Scratch<L>& scratch) {
  if (job.m == 4 && job.dtype == 0) mask_tile<L, Float32, 4>(job, first, groups, scratch);
  else if (job.m == 4) mask_tile<L, Float16, 4>(job, first, groups, scratch);
  else if (job.dtype == 0) mask_tile<L, Float32, 0>(job, first, groups, scratch);
  else mask_tile<L, Float16, 0>(job, first, groups, scratch);
}

// All groups, split among the threads of the enclosing parallel region.
template <int L>
RAC_INLINE void mask_tiles(const MaskJob& job) {
  Scratch<L> scratch(job.m);
  const int64_t tiles = (job.groups + L - 1) / L;
#pragma omp for schedule(static)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = tile * L;
    mask_tile_of<L>(job, first, std::min<int64_t>(L, job.groups - first), scratch);
  }
}

void mask_baseline(const MaskJob& job) { mask_tiles<4>(job); }
RAC_AVX2 void mask_avx2(const MaskJob& job) { mask_tiles<8>(job); }
RAC_AVX512 void mask_avx512(const MaskJob& job) { mask_tiles<16>(job); }

}  // namespace

void select_mask(const MaskJob& job) {
  const auto run = pick(mask_baseline, mask_avx2, mask_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job);
}
