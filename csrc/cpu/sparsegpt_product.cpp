// The products of sparsegpt.h. Rows are lanes, columns are broadcast: VECTORS * N sums stay in
// registers over PART steps, a part of a chunk of D, [PART][T], in the L1 cache, a chunk of the carry
// in the L2 cache. Sums of a chunk that has two parts wait in memory for the second.
//
// An entry receives, chunk after chunk, the chunk's sum in order of k: the same bits for any number
// of threads and every place in a tile, and the same for AVX2 and AVX-512, which fuse a product
// with its sum; the baseline rounds both.

#include "sparsegpt.h"

#include <algorithm>

#include "lanes.h"
#include "product.h"

namespace {

// Half a chunk of 48 rows in 24 KB: a whole one would fill the L1 cache of those CPUs.
template <int L>
constexpr int64_t PART = L == 16 ? CHUNK / 2 : CHUNK;

static_assert(CHUNK % Tiling<4>::T == 0 && CHUNK % Tiling<8>::T == 0 &&
              CHUNK % Tiling<16>::T == 0);

// Rows k and after of the carry's columns j .. j + N, [.][N].
template <int L>
RAC_INLINE float* carry_at(const Columns& columns, int64_t k, int64_t j) {
  return columns.carry + k / CHUNK * CHUNK * columns.padded + j * CHUNK +
         k % CHUNK * Tiling<L>::N;
}

// Rows k0 .. k0 + T of the carry. `left` [width][T] holds those of U: where the matrix is a power
// of two wide, its rows lie in one set of a cache, which holds but eight of them.
template <int L>
RAC_INLINE void carry_tile(const SparseGPT& job, const Columns& columns, int64_t k0, float* left) {
  constexpr int V = Tiling<L>::VECTORS, T = Tiling<L>::T, N = Tiling<L>::N;
  const int64_t valid = std::min<int64_t>(T, columns.start - k0);
  for (int64_t i = 0; i < columns.width; ++i) {
    const float* from = job.lower + (columns.start + i) * job.stride_lower + k0;
    __builtin_prefetch(from + T);  // for the next tile
    __builtin_prefetch(from + 2 * T - 1);
    if (valid == T) std::memcpy(left + i * T, from, T * sizeof(float));
    else std::memcpy(left + i * T, from, valid * sizeof(float));
  }
  for (int64_t j = 0; j < columns.padded; j += N) {
    F32<L> sum[N][V];
    const int64_t depth = std::min(columns.width, j + N);  // U_bb^-1 is upper triangular
    multiply<L>(left, T, columns.groups + j * columns.width, N, depth, sum);
    alignas(64) float negative[N][T];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) *reinterpret_cast<F32<L>*>(&negative[n][v * L]) = -sum[n][v];
    }
    float* out = carry_at<L>(columns, k0, j);
    for (int k = 0; k < T; k += 4) {
      for (int n = 0; n < N; n += 4) transpose_4x4(&negative[n][k], T, out + k * N + n, N);
    }
  }
}

template <int L>
RAC_INLINE void carry_all(const SparseGPT& job, const Columns& columns, int64_t first,
                          int64_t last) {
  constexpr int T = Tiling<L>::T;
  AlignedArray<float> left(columns.width * T);
  for (int64_t tile = first; tile < last; ++tile) {
    carry_tile<L>(job, columns, tile * T, left.get());
  }
}

void carry_baseline(const SparseGPT& job, const Columns& columns, int64_t first, int64_t last) {
  carry_all<4>(job, columns, first, last);
}
RAC_AVX2 void carry_avx2(const SparseGPT& job, const Columns& columns, int64_t first,
                         int64_t last) {
  carry_all<8>(job, columns, first, last);
}
RAC_AVX512 void carry_avx512(const SparseGPT& job, const Columns& columns, int64_t first,
                             int64_t last) {
  carry_all<16>(job, columns, first, last);
}

// What is to come from memory later: some is asked for with each group of columns.
struct Ahead {
  const char* next;
  int64_t share;  // bytes

  void fetch() {
    for (int64_t line = 0; line < share; line += 64) __builtin_prefetch(next + line, 0, 2);
    next += share;
  }
};

// values += D_{k0..k0+depth} carry for a tile of rows. `parts` [padded][T] holds sums meanwhile.
template <int L>
RAC_INLINE void add_chunk(const float* left, const Columns& columns, float* values, float* parts,
                          int64_t k0, int64_t depth, Ahead& ahead) {
  constexpr int V = Tiling<L>::VECTORS, T = Tiling<L>::T, N = Tiling<L>::N;
  constexpr int64_t NEXT_GROUP = L == 16 ? CHUNK * N : 0;
  for (int64_t part = 0; part < depth; part += PART<L>) {
    const int64_t steps = std::min(PART<L>, depth - part);
    const bool first = part == 0, last = part + steps == depth;
    for (int64_t j = 0; j < columns.padded; j += N) {
      ahead.fetch();
      Sums<L> sum;
      const auto* before = reinterpret_cast<const F32<L>*>(parts + j * T);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) sum[n][v] = first ? F32<L>{} : before[n * V + v];
      }
      add_product<L, NEXT_GROUP>(left + part * T, T, carry_at<L>(columns, k0 + part, j), N, steps,
                                 sum);
      auto* to = reinterpret_cast<F32<L>*>((last ? values : parts) + j * T);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) to[n * V + v] = last ? to[n * V + v] + sum[n][v] : sum[n][v];
      }
    }
  }
}

template <int L>
RAC_INLINE void add_all(const SparseGPT& job, const Columns* columns, const Block* blocks,
                        int count, int64_t begin, int64_t end, const Team& team) {
  constexpr int T = Tiling<L>::T, N = Tiling<L>::N;
  const Matrix& matrix = blocks->matrix;
  const int64_t tiles = (matrix.rows + T - 1) / T;
  int64_t padded = 0, widest = 0;
  for (int i = 0; i < count; ++i) {
    padded += columns[i].padded;
    widest = std::max(widest, columns[i].padded);
  }
  AlignedArray<float> parts(PART<L> < CHUNK ? widest * T : 0);
  for (int64_t k0 = begin; k0 < end; k0 += CHUNK) {
    const int64_t depth = std::min(CHUNK, end - k0);
    const int64_t share =
        (std::min(depth, PART<L>) * T * sizeof(float) * N / padded + 63) / 64 * 64;
    for (int64_t tile = team.begin(tiles); tile < team.end(tiles); ++tile) {
      const float* left = matrix.out + (tile * job.columns + k0) * T;
      const float* next = left + job.columns * T;  // the next tile's
      Ahead ahead{reinterpret_cast<const char*>(next), share};
      for (int i = 0; i < count; ++i) {
        float* values = blocks[i].values + tile * columns[i].padded * T;
        add_chunk<L>(left, columns[i], values, parts.get(), k0, depth, ahead);
      }
    }
  }
}

void add_baseline(const SparseGPT& job, const Columns* columns, const Block* blocks, int count,
                  int64_t begin, int64_t end, const Team& team) {
  add_all<4>(job, columns, blocks, count, begin, end, team);
}
RAC_AVX2 void add_avx2(const SparseGPT& job, const Columns* columns, const Block* blocks,
                       int count, int64_t begin, int64_t end, const Team& team) {
  add_all<8>(job, columns, blocks, count, begin, end, team);
}
RAC_AVX512 void add_avx512(const SparseGPT& job, const Columns* columns, const Block* blocks,
                           int count, int64_t begin, int64_t end, const Team& team) {
  add_all<16>(job, columns, blocks, count, begin, end, team);
}

}  // namespace

int tile_rows() { return pick(Tiling<4>::T, Tiling<8>::T, Tiling<16>::T); }
int tile_columns() { return pick(Tiling<4>::N, Tiling<8>::N, Tiling<16>::N); }

void carry_tiles(const SparseGPT& job, const Columns& columns, int64_t first, int64_t last) {
  pick(carry_baseline, carry_avx2, carry_avx512)(job, columns, first, last);
}

void add_products(const SparseGPT& job, const Columns* columns, const Block* blocks, int count,
                  int64_t begin, int64_t end, const Team& team) {
  pick(add_baseline, add_avx2, add_avx512)(job, columns, blocks, count, begin, end, team);
}
