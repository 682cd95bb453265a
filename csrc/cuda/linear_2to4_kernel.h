// y = x W^T for a 2:4 weight and 1 to 64 tokens. Decoding is bound by reading W, so W is read once,
// in order, 16 bytes a lane, and everything else gives way to that:
//
//   A block of WARPS warps walks its units (tile of 32 WARPS rows, chunk of 128 columns). A warp
//   copies its own strip of W into a ring in shared memory, from which each lane takes back what it
//   copied itself, operand A of mma.sp; x is copied by all and read by all as operand B (tokens are
//   n), so a stage needs one barrier. Copies run stages - 1 units ahead, across tiles.
//
//   Blocks share units equally, so tiles are cut where the count says. The pieces of a tile are
//   added in a tree: at each node the side that comes second adds what the first left behind and
//   goes on. a + b = b + a: the same bits whichever comes first, and nobody waits for anybody.
#pragma once

#include "linear_2to4.h"

namespace linear_2to4 {

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
struct Block {
  const Arguments& in;
  uint4* ring;  // stages of [WARPS][VECTORS][32] of W, then [8 TILES][UNITS] of x
  int chunks;
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

  // The last tile may have fewer strips than there are warps.
  __device__ bool has_strip(int tile) const {
    return (int64_t{tile} * WARPS + warp) * STRIP < in.rows;
  }

  __device__ void copy(const Cursor& at, int stage) {
    uint4* to = ring + stage * stage_vectors(TILES, WARPS);
    const int64_t strip = int64_t{at.tile} * WARPS + warp;
    if (has_strip(at.tile)) {
      const uint4* from = static_cast<const uint4*>(in.weight);
#pragma unroll
      for (int v = 0; v < VECTORS; ++v) {
        copy_async(to + (warp * VECTORS + v) * 32 + lane,
                   from + weight_vector(strip, chunks, at.chunk, v, lane));
      }
    }
    to += WARPS * VECTORS * 32;
    constexpr int STEP = WARPS * 32 / UNITS;  // tokens that all threads copy at once
    static_assert(TILES * 8 % STEP == 0, "threads would idle");
    const int thread = warp * 32 + lane, unit = thread % UNITS;
    const int64_t column = int64_t{at.chunk} * CHUNK + unit * 8;
    const uint16_t* x = static_cast<const uint16_t*>(in.x);
#pragma unroll
    for (int i = 0; i < TILES * 8 / STEP; ++i) {
      const int token = thread / UNITS + i * STEP;
      const bool valid = token < in.tokens && column < in.columns;
      copy_async(to + x_vector(token, unit), valid ? x + token * in.stride + column : x, valid);
    }
  }

  template <typename Half>
  __device__ void multiply(int stage) {
    const uint4* w = ring + stage * stage_vectors(TILES, WARPS) + warp * VECTORS * 32 + lane;
    const uint4* x = ring + stage * stage_vectors(TILES, WARPS) + WARPS * VECTORS * 32;
    const uint4 metadata = w[8 * 32];
    const uint32_t words[4] = {metadata.x, metadata.y, metadata.z, metadata.w};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const uint4 upper = w[(2 * s) * 32], lower = w[(2 * s + 1) * 32];
#pragma unroll
      for (int n = 0; n < TILES; ++n) {
        const uint4 b = load_matrices(x + x_vector(8 * n + lane % 8, 4 * s + lane / 8));
        multiply_sparse<Half, 0>(sums[0][n], upper, b, words[s]);
        multiply_sparse<Half, 1>(sums[1][n], lower, b, words[s]);
      }
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
  __device__ bool reduce(int tile, int units) {
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

  template <typename Half>
  __device__ void store(int tile) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = (int64_t{tile} * WARPS + warp) * STRIP + 16 * h + product_row(lane, 2 * half);
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
            static_cast<uint16_t*>(in.y)[token * in.rows + row] =
                rounded<Half>(sums[h][n][i] * scale + bias);
          }
        }
      }
    }
  }
};

template <typename Half, int TILES, int WARPS>
__global__ void __launch_bounds__(32 * WARPS)
kernel(const __grid_constant__ Arguments in, int stages) {
  const int chunks = static_cast<int>(ceil_div(in.columns, CHUNK));
  const int units = static_cast<int>(ceil_div(in.rows, WARPS * STRIP)) * chunks;
  const int number = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  const int begin = first_unit(number, blocks, units), end = first_unit(number + 1, blocks, units);
  Block<TILES, WARPS> block{in, shared_memory(), chunks, static_cast<int>(threadIdx.x / 32),
                            static_cast<int>(threadIdx.x % 32)};
  Cursor ahead(begin, chunks), at(begin, chunks);
  int copied = begin;
  for (int stage = 0; stage < stages - 1; ++stage) {
    if (copied < end) block.copy(ahead, stage);
    copy_commit();
    ahead.next(chunks);
    ++copied;
  }
  block.clear();
  bool whole = at.chunk == 0;
  int stage = 0, filled = stages - 1;
  for (int unit = begin; unit < end; ++unit) {
    copy_wait(stages - 2);
    __syncthreads();  // all copies of this stage are there, and nobody reads the one before it
    if (copied < end) block.copy(ahead, filled);
    copy_commit();
    ahead.next(chunks);
    ++copied;
    if (block.has_strip(at.tile)) block.template multiply<Half>(stage);
    stage = stage + 1 == stages ? 0 : stage + 1;
    filled = filled + 1 == stages ? 0 : filled + 1;
    const bool last = at.chunk == chunks - 1;
    if (last || unit + 1 == end) {
      if ((whole && last) || block.reduce(at.tile, units)) block.template store<Half>(at.tile);
      block.clear();
      whole = true;
    }
    at.next(chunks);
  }
}

}  // namespace linear_2to4
