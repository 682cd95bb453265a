// What linears with packed weights share: y = x W^T for 1 to 64 tokens. Decoding is bound by
// reading W, so W is read once, in order, 16 bytes a lane, and everything else gives way to that:
//
//   A block of WARPS warps walks its units (tile of 32 WARPS rows, chunk of columns). A warp copies
//   its own strip of W into a ring in shared memory and takes operand A from there; x is copied by
//   all and read by all as operand B (tokens are n), so a stage needs one barrier. Copies run
//   stages - 1 units ahead, across tiles.
//
//   Blocks share units equally, so tiles are cut where the count says. The pieces of a tile are
//   added in a tree: at each node the side that comes second adds what the first left behind and
//   goes on. a + b = b + a: the same bits whichever comes first, and nobody waits for anybody.
//
// Include warp.h, or what stands in its place, before.
#pragma once

#include "linear_plan.h"

namespace linear {

// A unit as two counters, without a division for each.
struct Cursor {
  int tile, chunk;

  __device__ Cursor(int unit, int chunks) : tile(unit / chunks), chunk(unit % chunks) {}

  __device__ void next(int chunks) {
    if (++chunk == chunks) {
      chunk = 0;
      ++tile;
    }
  }
};

template <int TILES, int WARPS>
struct Tile {
  const Arguments& in;
  int warp, lane;
  float sums[2][TILES][4];  // upper and lower 16 rows of the warp's strip

  __device__ void clear() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[h][n][i] = 0.0f;
      }
    }
  }

  __device__ int64_t strip(int tile) const { return int64_t{tile} * WARPS + warp; }

  // The last tile may have fewer strips than there are warps.
  __device__ bool has_strip(int tile) const { return strip(tile) * STRIP < in.rows; }

  template <int CHUNK>
  __device__ void copy_x(int chunk, uint4* to) const {
    constexpr int UNITS = CHUNK / 8;
    constexpr int STEP = WARPS * 32 / UNITS;  // tokens that all threads copy at once
    const int thread = warp * 32 + lane, unit = thread % UNITS;
    const int64_t column = int64_t{chunk} * CHUNK + unit * 8;
    const uint16_t* x = static_cast<const uint16_t*>(in.x);
#pragma unroll
    for (int from = 0; from < TILES * 8; from += STEP) {
      const int token = thread / UNITS + from;
      if (TILES * 8 % STEP != 0 && token >= TILES * 8) break;
      const bool valid = token < in.tokens && column < in.columns;
      copy_async(to + x_vector(token, unit, UNITS), valid ? x + token * in.stride + column : x,
                 valid);
    }
  }

  // The float4 of a warp's partial sums that this lane owns.
  __device__ float4* partial(int64_t slot, int h, int n) const {
    float4* all = reinterpret_cast<float4*>(in.partials);
    return all + (((slot * WARPS + warp) * 2 + h) * TILES + n) * 32 + lane;
  }

  __device__ void leave(int64_t slot) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
        const float(&c)[4] = sums[h][n];
        __stcg(partial(slot, h, n), make_float4(c[0], c[1], c[2], c[3]));
      }
    }
    __threadfence();
  }

  __device__ void add(int64_t slot) {
    __threadfence();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
        const float4 c = __ldcg(partial(slot, h, n));  // from L2: another block wrote it
        sums[h][n][0] += c.x;
        sums[h][n][1] += c.y;
        sums[h][n][2] += c.z;
        sums[h][n][3] += c.w;
      }
    }
  }

  // Adds the pieces of a tile; true in the one block that then has all of them. A node of the tree
  // is named by the first block of its right side, which begins inside this tile and so no other.
  __device__ bool reduce(int tile, int chunks, int units) {
    const int blocks = static_cast<int>(gridDim.x);
    const int64_t first = block_of(tile * chunks, blocks, units);
    const int count =
        static_cast<int>(block_of(tile * chunks + chunks - 1, blocks, units) - first + 1);
    const int mine = static_cast<int>(blockIdx.x - first);
    const bool speaker = threadIdx.x == 0;
    for (int level = 1; level < count; level *= 2) {
      const int right = (mine / level | 1) * level;
      if (right >= count) continue;  // nothing on the right: up as it is
      const int side = mine / level & 1;
      int* arrived = in.arrived + first + right;
      bool second = __syncthreads_or(speaker && load_acquire(arrived) != 0);
      if (!second) {
        leave(2 * (first + right) + side);
        __syncthreads();
        second = __syncthreads_or(speaker && add_release(arrived, 1) != 0);
        if (!second) return false;
      }
      if (speaker) *arrived = 0;  // for the next launch
      add(2 * (first + right) + 1 - side);
    }
    return true;
  }

  // Half: y, and a bias that is not float32. SCALES_X: a scale a token too.
  template <typename Half, bool SCALES_X>
  __device__ void store(int tile) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = strip(tile) * STRIP + 16 * h + product_row(lane, 2 * half);
        if (row >= in.rows) continue;
        const float scale = in.scale == nullptr ? 1.0f : in.scale[row];
        float bias = 0.0f;
        if (in.bias != nullptr) {
          bias = in.bias_is_float ? static_cast<const float*>(in.bias)[row]
                                  : widened<Half>(static_cast<const uint16_t*>(in.bias)[row]);
        }
#pragma unroll
        for (int n = 0; n < TILES; ++n) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            const int64_t token = 8 * n + product_token(lane, i);
            if (token >= in.tokens) continue;
            float y = sums[h][n][i] * scale;
            if constexpr (SCALES_X) y *= in.x_scale[token];
            static_cast<uint16_t*>(in.y)[token * in.rows + row] = rounded<Half>(y + bias);
          }
        }
      }
    }
  }
};

// Weight: a format's CHUNK, whether it SCALES_X, and what copies and multiplies a warp's part of a
// unit.
template <typename Weight, typename Half, int TILES, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 8 / WARPS)
kernel(const __grid_constant__ Arguments in, int stages, int slot) {
  constexpr int CHUNK = Weight::CHUNK;
  const int chunks = static_cast<int>(ceil_div(in.columns, CHUNK));
  const int units = static_cast<int>(ceil_div(in.rows, WARPS * STRIP)) * chunks;
  const int number = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  const int begin = first_unit(number, blocks, units), end = first_unit(number + 1, blocks, units);
  const int stride = WARPS * slot + TILES * CHUNK;  // vectors of a stage: W, then 8 TILES of x
  uint4* const ring = shared_memory();
  Tile<TILES, WARPS> tile{in, static_cast<int>(threadIdx.x / 32),
                          static_cast<int>(threadIdx.x % 32)};
  Cursor ahead(begin, chunks), at(begin, chunks);
  Weight weight;
  weight.begin(tile, ahead, chunks);
  int copied = begin;
  const auto copy = [&](int stage) {
    if (copied < end) {
      uint4* to = ring + stage * stride;
      if (tile.has_strip(ahead.tile)) weight.copy(tile, ahead, chunks, to + tile.warp * slot);
      tile.template copy_x<CHUNK>(ahead.chunk, to + WARPS * slot);
    }
    copy_commit();
    ahead.next(chunks);
    ++copied;
    if (copied < end) weight.begin(tile, ahead, chunks);
  };
  for (int stage = 0; stage < stages - 1; ++stage) copy(stage);
  tile.clear();
  bool whole = at.chunk == 0;
  int stage = 0, filled = stages - 1;
  for (int unit = begin; unit < end; ++unit) {
    copy_wait(stages - 2);
    __syncthreads();  // all copies of this stage are there, and nobody reads the one before it
    copy(filled);
    const uint4* from = ring + stage * stride;
    if (tile.has_strip(at.tile)) {
      Weight::template multiply<Half>(tile, from + tile.warp * slot, from + WARPS * slot);
    }
    stage = stage + 1 == stages ? 0 : stage + 1;
    filled = filled + 1 == stages ? 0 : filled + 1;
    const bool last = at.chunk == chunks - 1;
    if (last || unit + 1 == end) {
      if ((whole && last) || tile.reduce(at.tile, chunks, units)) {
        tile.template store<Half, Weight::SCALES_X>(at.tile);
      }
      tile.clear();
      whole = true;
    }
    at.next(chunks);
  }
}

}  // namespace linear
