// The two passes of sparsegpt_keys.h over a thread's tiles.

#include "sparsegpt_keys.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>

#include "sparsegpt_lanes.h"

namespace {

// How many lanes of a tile are rows.
template <int L>
RAC_INLINE int64_t rows_of(const Block& block, int64_t tile) {
  constexpr int T = Tiling<L>::T;
  return std::min<int64_t>(T, block.matrix.rows - tile * T);
}

template <int L>
RAC_INLINE void sample_all(const SparseGPT& job, const Columns& columns, const Block& block,
                           const Team& team, int64_t step, Found& found) {
  constexpr int T = Tiling<L>::T;
  std::fill(found.sample.begin(), found.sample.end(), 0);
  const int64_t tiles = (block.matrix.rows + T - 1) / T, size = columns.width * T;
  int64_t tile = team.begin(tiles);
  int64_t at = (step - tile * size % step) % step;  // in the tile
  for (; tile < team.end(tiles); ++tile, at -= size) {
    const int64_t rows = rows_of<L>(block, tile);
    const float* values = reinterpret_cast<const float*>(tile_values<L>(columns, block, tile));
    for (; at < size; at += step) {
      const int64_t c = at / T, r = at % T;
      if (r >= rows) continue;
      const float scale = columns.inverse[c * (columns.padded + 1)];
      const float score = values[at] * values[at] / (scale * scale);
      int32_t key;
      std::memcpy(&key, &score, sizeof(key));
      key &= 0x7fffffff;
      if (job.grow) {  // one more is another bin for one in 2^18
        key = block.matrix.keep[(tile * T + r) * job.columns + columns.start + c] ? key : 0;
      }
      ++found.sample[key >> BIN_SHIFT];
    }
  }
}

// Those of the L keys that lie inside, and their indices, to `keys` and `indices`: how many.
template <int L>
struct Copy {
  RAC_INLINE int64_t inside(const I32<L>& inside, const I32<L>& key, const I32<L>& index,
                            int32_t* keys, int32_t* indices) {
    int64_t copied = 0;
    for (int lane = 0; lane < L; ++lane) {
      keys[copied] = key[lane];
      indices[copied] = index[lane];
      copied -= inside[lane];  // nothing would predict a branch
    }
    return copied;
  }
};
#if defined(__x86_64__)
template <>
struct Copy<16> {
  RAC_AVX512 static inline int64_t inside(const I32<16>& inside, const I32<16>& key,
                                          const I32<16>& index, int32_t* keys, int32_t* indices) {
    const __mmask16 mask = _mm512_movepi32_mask(reinterpret_cast<const __m512i&>(inside));
    const auto chosen = [&](const I32<16>& from) RAC_AVX512 {
      return _mm512_maskz_compress_epi32(mask, reinterpret_cast<const __m512i&>(from));
    };
    _mm512_storeu_si512(keys, chosen(key));
    _mm512_storeu_si512(indices, chosen(index));
    return __builtin_popcount(mask);
  }
};
#endif

template <int L>
RAC_INLINE void collect_all(const SparseGPT& job, const Columns& columns, const Block& block,
                            const Team& team, const Window& window, Found& found) {
  constexpr int V = Tiling<L>::VECTORS, T = Tiling<L>::T;
  Scratch<L> scratch(job, columns);
  const int64_t tiles = (block.matrix.rows + T - 1) / T, size = columns.width * T;
  int64_t copied = 0;
  I32<L> below[V] = {};
  for (int64_t tile = team.begin(tiles); tile < team.end(tiles); ++tile) {
    if (job.grow) load_given<L>(job, columns, block, tile, scratch);
    block_keys<L>(job, columns, block, tile, scratch);
    if (static_cast<int64_t>(found.keys.size()) < copied + size + L) {
      found.keys.resize(2 * copied + size + L);
      found.indices.resize(2 * copied + size + L);
    }
    const int64_t rows = rows_of<L>(block, tile);
    I32<L> index[V], valid[V];
    row_indices<L>(columns, tile, index);
    for (int v = 0; v < V; ++v) {
      for (int lane = 0; lane < L; ++lane) valid[v][lane] = v * L + lane < rows ? -1 : 0;
    }
    for (int64_t c = 0; c < columns.width; ++c) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) {
        const I32<L> key = scratch.keys[c * V + v];
        const I32<L> lower = (key < window.lowest) & valid[v];  // -1 or 0
        const I32<L> inside = ((key <= window.highest) & valid[v]) ^ lower;
        below[v] -= lower;
        copied += Copy<L>::inside(inside, key, index[v], found.keys.data() + copied,
                                  found.indices.data() + copied);
        index[v] += 1;
      }
    }
  }
  found.inside = copied;
  found.below = 0;
  for (int i = 0; i < T; ++i) found.below += below[i / L][i % L];
}

void sample_baseline(const SparseGPT& job, const Columns& columns, const Block& block,
                     const Team& team, int64_t step, Found& found) {
  sample_all<4>(job, columns, block, team, step, found);
}
RAC_AVX2 void sample_avx2(const SparseGPT& job, const Columns& columns, const Block& block,
                          const Team& team, int64_t step, Found& found) {
  sample_all<8>(job, columns, block, team, step, found);
}
RAC_AVX512 void sample_avx512(const SparseGPT& job, const Columns& columns, const Block& block,
                              const Team& team, int64_t step, Found& found) {
  sample_all<16>(job, columns, block, team, step, found);
}
void collect_baseline(const SparseGPT& job, const Columns& columns, const Block& block,
                      const Team& team, const Window& window, Found& found) {
  collect_all<4>(job, columns, block, team, window, found);
}
RAC_AVX2 void collect_avx2(const SparseGPT& job, const Columns& columns, const Block& block,
                           const Team& team, const Window& window, Found& found) {
  collect_all<8>(job, columns, block, team, window, found);
}
RAC_AVX512 void collect_avx512(const SparseGPT& job, const Columns& columns, const Block& block,
                               const Team& team, const Window& window, Found& found) {
  collect_all<16>(job, columns, block, team, window, found);
}

}  // namespace

void sample_keys(const SparseGPT& job, const Columns& columns, const Block& block,
                 const Team& team, int64_t step, Found& found) {
  pick(sample_baseline, sample_avx2, sample_avx512)(job, columns, block, team, step, found);
}

void collect_keys(const SparseGPT& job, const Columns& columns, const Block& block,
                  const Team& team, const Window& window, Found& found) {
  pick(collect_baseline, collect_avx2, collect_avx512)(job, columns, block, team, window, found);
}
