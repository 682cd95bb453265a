// Bitmap weights for linear_tile.h: the two weights of a lane in a group are found by counting the
// bits below its own, one population count for two weights; neighbouring lanes read neighbouring
// values, so that shared memory is read without conflicts.
#pragma once

#include "layout_bitmap.h"
#include "linear_tile.h"

namespace linear {

struct WeightBitmap {
  static constexpr int CHUNK = layout_bitmap::CHUNK;
  static constexpr bool SCALES_X = false;
  uint32_t first, last;  // vectors of the chunk that is copied next, asked for a unit before

  template <typename Tile>
  __device__ void begin(const Tile& tile, const Cursor& at, int chunks) {
    if (!tile.has_strip(at.tile)) return;
    const uint32_t* starts = tile.in.starts + tile.strip(at.tile) * chunks + at.chunk;
    first = starts[0];
    last = starts[1];
  }

  template <typename Tile>
  __device__ void copy(const Tile& tile, const Cursor&, int, uint4* to) const {
    const uint4* from = static_cast<const uint4*>(tile.in.weight) + first;
    const int count = static_cast<int>(last - first);
    for (int v = tile.lane; v < count; v += 32) copy_async(to + v, from + v);
  }

  // Operand A of rows 16 h .. 16 h + 15 and columns 16 s .. 16 s + 15, whose groups' words and
  // counts these are; `values` moves on behind them.
  static __device__ uint4 expand(const uint4& words, const uint2& counts, int lane,
                                 const uint16_t*& values) {
    const uint32_t bits[4] = {words.x, words.y, words.z, words.w};
    const uint32_t pairs[2] = {counts.x, counts.y};
    const int shift = lane % 16 * 2;
    uint32_t out[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const uint32_t count = pairs[r / 2] >> (16 * (r % 2));
      const int below = __popc(bits[r] & ((1u << shift) - 1)) + (lane < 16 ? 0 : count & 255);
      const uint32_t two = bits[r] >> shift;
      const uint32_t low = two & 1 ? values[below] : 0;
      const uint32_t high = two & 2 ? values[below + (two & 1)] : 0;
      out[r] = low | high << 16;
      values += count >> 8 & 255;
    }
    return make_uint4(out[0], out[1], out[2], out[3]);
  }

  template <typename Half, int TILES, int WARPS>
  static __device__ void multiply(Tile<TILES, WARPS>& tile, const uint4* w, const uint4* x) {
    const int lane = tile.lane;
    const uint4* words = w + lane / 16 * 8;
    const uint2* counts = reinterpret_cast<const uint2*>(w + layout_bitmap::COUNTS);
    const uint16_t* values = reinterpret_cast<const uint16_t*>(w + layout_bitmap::VALUES);
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {  // of 16 columns
      uint4 a[2][2];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int group = 4 * pair + i;  // of four groups
        a[i / 2][i % 2] = expand(words[group], counts[group], lane, values);
      }
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
        const uint4 b =
            load_matrices(x + x_vector(8 * n + lane % 8, 4 * pair + lane / 8, CHUNK / 8));
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          multiply_dense<Half>(tile.sums[h][n], a[0][h], b.x, b.y);
          multiply_dense<Half>(tile.sums[h][n], a[1][h], b.z, b.w);
        }
      }
    }
  }
};

}  // namespace linear
