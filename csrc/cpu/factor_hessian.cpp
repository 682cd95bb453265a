// H = U U^T in place, reading and writing the lower triangle: L = U^T is what ends there.
//
// Block rows of BLOCK are done from the last to the first, PANEL rows at a time:
//
//          columns <= b
//        +------+----+       factor_block    L_bb and U_bb^-1, in float64
//        |      |    |       solve_rows      L_{b,<b} = U_bb^-1 H_{b,<b}
//   b -> |------|    |       update_rows     H_b -= L_pb^T L_p, rows p of the panel below b
//        |------|----|       hessian_accumulate with weights of -1: H -= L_p^T L_p on all rows
//        | done      |                       above the panel, nearly all of the flops
//
// An entry is computed by one thread, in an order that depends on its place alone: the same bits
// for any number of threads.

#include "factor_hessian.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "panels.h"
#include "product.h"
#include "team.h"
#include "triangular.h"

namespace {

constexpr int64_t BLOCK = 128, PANEL = 256;

// A block row of H.
struct BlockRow {
  float* matrix;
  int64_t stride;
  int64_t start, end;  // its rows
  int64_t known;       // rows end .. known are of the same panel
  // Right operands [BLOCK / N][rows][N], copied: where H is a power of two wide, its rows lie in
  // one set of a cache, which holds but eight of them.
  float* inverse;  // U_bb^-1 transposed, BLOCK rows, zeros beyond its width
  float* below;    // L_pb, PANEL rows
};

// L_bb to the matrix and its inverse to `inverse`, unless a pivot fails.
template <int L>
RAC_INLINE Pivot factor_diagonal(const BlockRow& job) {
  constexpr int64_t N = Tiling<L>::N;
  const int64_t width = job.end - job.start;
  float* block = job.matrix + job.start * (job.stride + 1);
  AlignedArray<double> rows(2 * width * width);
  double* exact = rows.get() + width * width;
  for (int64_t r = 0; r < width; ++r) {
    for (int64_t c = 0; c <= r; ++c) rows[r * width + c] = block[r * job.stride + c];
  }
  const int64_t failed = factor_lower<L>(rows.get(), width);
  if (failed >= 0) return {job.start + failed, rows[failed * (width + 1)]};
  invert_upper<L>(rows.get(), width, width, exact);
  std::fill(job.inverse, job.inverse + BLOCK * BLOCK, 0.0f);
  for (int64_t r = 0; r < width; ++r) {
    for (int64_t c = 0; c <= r; ++c) block[r * job.stride + c] = rows[r * width + c];
    float* inverse = job.inverse + r / N * N * BLOCK + r % N;
    for (int64_t c = r; c < width; ++c) inverse[c * N] = exact[r * width + c];
  }
  return {-1, 0};
}

Pivot diagonal_baseline(const BlockRow& job) { return factor_diagonal<4>(job); }
RAC_AVX2 Pivot diagonal_avx2(const BlockRow& job) { return factor_diagonal<8>(job); }
RAC_AVX512 Pivot diagonal_avx512(const BlockRow& job) { return factor_diagonal<16>(job); }

// The T columns from `first` on of rows .. rows + count of H, to or from a tile [count][T].
template <int L>
RAC_INLINE void copy_tile(const BlockRow& job, int64_t row, int64_t count, int64_t first,
                          int64_t columns, float* tile, bool back) {
  constexpr int T = Tiling<L>::T;
  for (int64_t r = 0; r < count; ++r) {
    float* at = job.matrix + (row + r) * job.stride + first;
    if (back) std::memcpy(at, tile + r * T, columns * sizeof(float));
    else std::memcpy(tile + r * T, at, columns * sizeof(float));
  }
}

// tile[n] += sign * sum_k left[k] right[k][n] for N rows of the tile; or = where `replace`.
template <int L, bool REPLACE>
RAC_INLINE void product_into(float* to, int64_t rows, const float* left, const float* right,
                             int64_t depth) {
  constexpr int V = Tiling<L>::VECTORS, N = Tiling<L>::N;
  F32<L> sum[N][V];
  multiply<L>(left, Tiling<L>::T, right, N, depth, sum);
  auto* out = reinterpret_cast<F32<L>*>(to);
  for (int n = 0; n < std::min<int64_t>(N, rows); ++n) {
    for (int v = 0; v < V; ++v) {
      if (REPLACE) out[n * V + v] = sum[n][v];
      else out[n * V + v] -= sum[n][v];
    }
  }
}

// H_b -= L_pb^T L_p for a tile of columns up to and with b.
template <int L>
RAC_INLINE void update_tile(const BlockRow& job, int64_t first, float* tile, float* below) {
  constexpr int T = Tiling<L>::T, N = Tiling<L>::N;
  const int64_t width = job.end - job.start, depth = job.known - job.end;
  const int64_t columns = std::min<int64_t>(T, job.end - first);
  copy_tile<L>(job, job.start, width, first, columns, tile, false);
  copy_tile<L>(job, job.end, depth, first, columns, below, false);
  for (int64_t n = 0; n < width; n += N) {
    product_into<L, false>(tile + n * T, width - n, below, job.below + n * PANEL, depth);
  }
  for (int64_t r = 0; r < width; ++r) {  // nothing above the diagonal is written
    const int64_t inside = std::min(columns, job.start + r + 1 - first);
    if (inside <= 0) continue;
    float* at = job.matrix + (job.start + r) * job.stride + first;
    std::memcpy(at, tile + r * T, inside * sizeof(float));
  }
}

// L_{b,<b} = U_bb^-1 H_{b,<b} for a tile of columns: row i needs the rows from i on.
template <int L>
RAC_INLINE void solve_tile(const BlockRow& job, int64_t first, float* tile) {
  constexpr int T = Tiling<L>::T, N = Tiling<L>::N;
  const int64_t width = job.end - job.start;
  const int64_t columns = std::min<int64_t>(T, job.start - first);
  copy_tile<L>(job, job.start, width, first, columns, tile, false);
  for (int64_t n = 0; n < width; n += N) {
    product_into<L, true>(tile + n * T, width - n, tile + n * T,
                          job.inverse + n * BLOCK + n * N, width - n);
  }
  copy_tile<L>(job, job.start, width, first, columns, tile, true);
}

// This thread's share of L_pb to `below`.
template <int L>
RAC_INLINE void copy_below(const BlockRow& job, const Team& team) {
  constexpr int64_t N = Tiling<L>::N;
  const int64_t depth = job.known - job.end, width = job.end - job.start;
  for (int64_t k = team.begin(depth); k < team.end(depth); ++k) {
    const float* from = job.matrix + (job.end + k) * job.stride + job.start;
    for (int64_t n = 0; n < width; ++n) job.below[n / N * N * PANEL + k * N + n % N] = from[n];
  }
}

template <int L>
RAC_INLINE void update_all(const BlockRow& job, const Team& team) {
  constexpr int T = Tiling<L>::T;
  AlignedArray<float> tile(BLOCK * T), below(PANEL * T);
  copy_below<L>(job, team);
  team.wait();
  const int64_t tiles = (job.end + T - 1) / T;
  for (int64_t t = team.begin(tiles); t < team.end(tiles); ++t) {
    update_tile<L>(job, t * T, tile.get(), below.get());
  }
}

template <int L>
RAC_INLINE void solve_all(const BlockRow& job, const Team& team) {
  constexpr int T = Tiling<L>::T;
  AlignedArray<float> tile(BLOCK * T);
  const int64_t tiles = (job.start + T - 1) / T;
  for (int64_t t = team.begin(tiles); t < team.end(tiles); ++t) {
    solve_tile<L>(job, t * T, tile.get());
  }
}

void update_baseline(const BlockRow& job, const Team& team) { update_all<4>(job, team); }
RAC_AVX2 void update_avx2(const BlockRow& job, const Team& team) { update_all<8>(job, team); }
RAC_AVX512 void update_avx512(const BlockRow& job, const Team& team) { update_all<16>(job, team); }
void solve_baseline(const BlockRow& job, const Team& team) { solve_all<4>(job, team); }
RAC_AVX2 void solve_avx2(const BlockRow& job, const Team& team) { solve_all<8>(job, team); }
RAC_AVX512 void solve_avx512(const BlockRow& job, const Team& team) { solve_all<16>(job, team); }

// What the threads share.
struct Shared {
  explicit Shared(int64_t columns, int threads)
      : inverse(BLOCK * BLOCK), below(BLOCK * PANEL), panels(columns, PANEL, threads) {}
  AlignedArray<float> inverse, below;
  Panels panels;
  std::atomic<int64_t> next{0};
  Pivot failed{-1, 0};
};

// Block rows panel .. panel_end; false where a pivot fails.
bool factor_panel(float* matrix, int64_t stride, int64_t panel, int64_t panel_end,
                  const Team& team, Shared& shared) {
  const auto update_rows = pick(update_baseline, update_avx2, update_avx512);
  const auto solve_rows = pick(solve_baseline, solve_avx2, solve_avx512);
  const auto diagonal = pick(diagonal_baseline, diagonal_avx2, diagonal_avx512);
  for (int64_t end = panel_end; end > panel;) {
    const int64_t start = std::max(panel, (end - 1) / BLOCK * BLOCK);
    const BlockRow job{matrix, stride, start, end, panel_end, shared.inverse.get(),
                       shared.below.get()};
    if (end < panel_end) {
      update_rows(job, team);
      team.wait();
    }
    if (team.thread == 0) shared.failed = diagonal(job);
    team.wait();
    if (shared.failed.column >= 0) return false;
    solve_rows(job, team);
    team.wait();
    end = start;
  }
  return true;
}

constexpr int64_t COPY_ROWS = 64;         // at a time
constexpr int64_t FRESH_BYTES = 64 << 20;  // from where malloc asks the system for new memory

}  // namespace

void copy_lower(const float* from, int64_t stride, float* to, int64_t columns, int threads) {
  const int64_t size = columns * columns, bytes = size * static_cast<int64_t>(sizeof(float));
  int64_t zeros = 0, zeros_end = 0;  // bytes of `to`
  if (bytes >= FRESH_BYTES) std::tie(zeros, zeros_end) = release_huge_pages(to, bytes);
  zeros /= sizeof(float), zeros_end /= sizeof(float);
  run_team(threads, [&](const Team& team) {
    for (int64_t first = team.thread * COPY_ROWS; first < columns;
         first += team.threads * COPY_ROWS) {
      const int64_t end = std::min(first + COPY_ROWS, columns);
      if (zeros == zeros_end) {
        populate_pages(to + first * columns, (end - first) * columns * sizeof(float));
      }
      for (int64_t r = first; r < end; ++r) {
        if (zeros < zeros_end) populate_pages(to + r * columns, (r + 1) * sizeof(float));
        std::memcpy(to + r * columns, from + r * stride, (r + 1) * sizeof(float));
        const int64_t above = r * columns + r + 1, next = (r + 1) * columns;
        std::fill(to + above, to + std::clamp(zeros, above, next), 0.0f);
        std::fill(to + std::clamp(zeros_end, above, next), to + next, 0.0f);
      }
    }
  });
}

Pivot reversed_cholesky(float* matrix, int64_t stride, int64_t columns, int threads) {
  Shared shared(columns, threads);
  const std::vector<float> minus(PANEL, -1.0f);
  run_team(threads, [&](const Team& team) {
    for (int64_t panel_end = columns; panel_end > 0;) {
      const int64_t panel = (panel_end - 1) / PANEL * PANEL;
      if (!factor_panel(matrix, stride, panel, panel_end, team, shared)) return;
      const TriangleUpdate job{matrix, stride, false, matrix + panel * stride, stride, 0,
                               minus.data(), panel_end - panel, panel, threads};
      if (panel > 0) hessian_accumulate(job, Rows(job), shared.panels, team, shared.next);
      panel_end = panel;
    }
  });
  shared.panels.release();  // a solve comes next, whose own memory should take its place
  return shared.failed;
}
