// 2:4 weights for linear_tile.h: a lane takes back from shared memory what it copied there itself,
// operand A and metadata of mma.sp as they are.
#pragma once

#include "layout_2to4.h"
#include "linear_tile.h"

namespace linear {

template <int VECTORS>
struct Copied2to4 {
  static constexpr int CHUNK = layout_2to4::CHUNK;

  template <typename Tile>
  __device__ void begin(const Tile&, const Cursor&, int) {}

  template <typename Tile>
  __device__ void copy(const Tile& tile, const Cursor& at, int chunks, uint4* to) const {
    const uint4* from = static_cast<const uint4*>(tile.in.weight);
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
      copy_async(to + v * 32 + tile.lane,
                 from + layout_2to4::weight_vector(VECTORS, tile.strip(at.tile), chunks, at.chunk,
                                                   v, tile.lane));
    }
  }
};

struct Weight2to4 : Copied2to4<layout_2to4::VECTORS> {
  static constexpr bool SCALES_X = false;

  template <typename Half, int TILES, int WARPS>
  static __device__ void multiply(Tile<TILES, WARPS>& tile, const uint4* w, const uint4* x) {
    const int lane = tile.lane;
    const uint4 metadata = w[8 * 32 + lane];
    const uint32_t words[4] = {metadata.x, metadata.y, metadata.z, metadata.w};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const uint4 upper = w[2 * s * 32 + lane], lower = w[(2 * s + 1) * 32 + lane];
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
        const uint4 b =
            load_matrices(x + x_vector(8 * n + lane % 8, 4 * s + lane / 8, CHUNK / 8));
        multiply_sparse<Half, 0>(tile.sums[0][n], upper, b, words[s]);
        multiply_sparse<Half, 1>(tile.sums[1][n], lower, b, words[s]);
      }
    }
  }
};

// fp8, made float16 in registers, beside x that was rounded to fp8 and is held as float16: both are
// exact, and sums are as good as those of float16. Hopper has no mma.sp of fp8: ptxas emulates it,
// in more registers than there are.
struct Weight2to4Fp8 : Copied2to4<layout_2to4::VECTORS_FP8> {
  static constexpr bool SCALES_X = true;

  static __device__ uint4 widened(uint32_t first, uint32_t second) {
    const uint2 low = widened_fp8(first), high = widened_fp8(second);
    return make_uint4(low.x, low.y, high.x, high.y);
  }

  template <typename Half, int TILES, int WARPS>
  static __device__ void multiply(Tile<TILES, WARPS>& tile, const uint4* w, const uint4* x) {
    const int lane = tile.lane;
    const uint4 metadata = w[4 * 32 + lane];
    const uint32_t words[4] = {metadata.x, metadata.y, metadata.z, metadata.w};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const uint4 both = w[s * 32 + lane];
      const uint4 upper = widened(both.x, both.y), lower = widened(both.z, both.w);
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
        const uint4 b =
            load_matrices(x + x_vector(8 * n + lane % 8, 4 * s + lane / 8, CHUNK / 8));
        multiply_sparse<Float16, 0>(tile.sums[0][n], upper, b, words[s]);
        multiply_sparse<Float16, 1>(tile.sums[1][n], lower, b, words[s]);
      }
    }
  }
};

}  // namespace linear
