// 2:4 weights for linear_tile.h: a lane takes back from shared memory what it copied there itself,
// operand A and metadata of mma.sp as they are.
#pragma once

#include "layout_2to4.h"
#include "linear_tile.h"

namespace linear {

struct Weight2to4 {
  static constexpr int CHUNK = layout_2to4::CHUNK;

  template <typename Tile>
  __device__ void begin(const Tile&, const Cursor&, int) {}

  template <typename Tile>
  __device__ void copy(const Tile& tile, const Cursor& at, int chunks, uint4* to) const {
    const uint4* from = static_cast<const uint4*>(tile.in.weight);
#pragma unroll
    for (int v = 0; v < layout_2to4::VECTORS; ++v) {
      copy_async(to + v * 32 + tile.lane,
                 from + layout_2to4::weight_vector(tile.strip(at.tile), chunks, at.chunk, v,
                                                   tile.lane));
    }
  }

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

}  // namespace linear
