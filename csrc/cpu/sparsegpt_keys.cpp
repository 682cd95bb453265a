// Scores of a whole block as integers that order as they do, for select_lowest.

#include "sparsegpt.h"
#include "sparsegpt_lanes.h"

namespace {

// Keys of all rows, row-major, [rows, width].
template <int L>
RAC_INLINE void keys_all(const SparseGPT& job, const Columns& columns, const Block& block,
                         int32_t* keys) {
  Scratch<L> scratch(job, columns);
  const int64_t groups = (block.matrix.rows + L - 1) / L;
#pragma omp for schedule(static)
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t row = group * L, rows = std::min<int64_t>(L, block.matrix.rows - row);
    load_values<L>(columns, block, group / Tiling<L>::VECTORS, group % Tiling<L>::VECTORS,
                   scratch);
    if (job.grow) load_given<L>(job, columns, block, row, rows, scratch);
    block_keys<L>(job, columns, scratch);
    // Keys are moved, never computed with: the float transpose carries any bits.
    store_columns<L>(reinterpret_cast<F32<L>*>(scratch.keys.get()), rows, columns.width,
                     reinterpret_cast<float*>(keys) + row * columns.width, columns.width);
  }
}

void keys_baseline(const SparseGPT& job, const Columns& columns, const Block& block,
                   int32_t* keys) {
  keys_all<4>(job, columns, block, keys);
}
RAC_AVX2 void keys_avx2(const SparseGPT& job, const Columns& columns, const Block& block,
                        int32_t* keys) {
  keys_all<8>(job, columns, block, keys);
}
RAC_AVX512 void keys_avx512(const SparseGPT& job, const Columns& columns, const Block& block,
                            int32_t* keys) {
  keys_all<16>(job, columns, block, keys);
}

}  // namespace

void key_tiles(const SparseGPT& job, const Columns& columns, const Block& block, int32_t* keys) {
  const auto run = pick(keys_baseline, keys_avx2, keys_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job, columns, block, keys);
}
