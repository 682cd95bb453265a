// The order of 2:4 metadata, as a warp holds it.
//
// A lane has 16 bytes of a row of weights, so a warp 512. Metadata comes in tiles of 128 bytes: 32
// rows of 32 columns of 16-bit values, 16 rows of 64 columns of bytes. Four lanes span the columns
// of a tile, and 16 bytes of it hold the rows r, r + 8 (, r + 16, r + 24) of all four: so a warp
// takes four r at a time, the four lanes exchange what they have of each (a 4 x 4 transpose), and
// each loads or stores 16 bytes.
#pragma once

#include <cstdint>

constexpr int WARPS = 4;  // a block
constexpr int THREADS = 32 * WARPS;
constexpr int STEPS = 4;  // values of r a warp takes

template <int SIZE>
struct Tile {
  static constexpr int ROWS = 16 * SIZE;
  static constexpr int COLUMNS = 64 / SIZE;
  static constexpr int BYTES = COLUMNS / 8;  // of a row
  static constexpr int PER_STEP = ROWS / 8;  // rows of one r
  static constexpr int PER_LANE = 16 / SIZE; // columns
  static constexpr int BITS = PER_LANE;      // of positions of a lane: two a value that is kept
};

// Which rows and columns a warp has in its n-th task; column tiles change fastest.
template <int SIZE>
struct Task {
  __device__ Task(int64_t task, int64_t columns, int64_t padded, int lane) {
    const int64_t across = tasks_across(columns);
    column = (task % across * 32 + lane) * Tile<SIZE>::PER_LANE;
    row = task / across / 2 * Tile<SIZE>::ROWS + task / across % 2 * STEPS;
    inside = column < columns;
    // Of the lane's 16 bytes: those of r = row % 8 + lane % 4.
    const int64_t tile_row = task / across / 2 * Tile<SIZE>::ROWS;
    metadata = (column / Tile<SIZE>::COLUMNS * padded + tile_row) * Tile<SIZE>::BYTES +
               (task / across % 2 * STEPS + lane % 4) * 16;
  }
  static __host__ __device__ int64_t tasks_across(int64_t columns) {
    return (columns + 32 * Tile<SIZE>::PER_LANE - 1) / (32 * Tile<SIZE>::PER_LANE);
  }
  static __host__ __device__ int64_t count(int64_t columns, int64_t padded) {
    return padded / Tile<SIZE>::ROWS * 2 * tasks_across(columns);
  }

  int64_t column, row, metadata;
  bool inside;
};

// held[k] of lane b becomes held[b] of lane k, among each four lanes.
__device__ __forceinline__ void transpose(uint32_t (&held)[STEPS], int lane) {
#pragma unroll
  for (int k = 0; k < 4; k += 2) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, lane & 1 ? held[k] : held[k + 1], 1);
    if (lane & 1) held[k] = other;
    else held[k + 1] = other;
  }
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, lane & 2 ? held[k] : held[k + 2], 2);
    if (lane & 2) held[k] = other;
    else held[k + 2] = other;
  }
}

// 16 bytes of metadata from what four lanes have of one r: bytes (or halves) of its rows.
template <int SIZE>
__device__ __forceinline__ uint4 interleaved(const uint32_t (&of)[4]) {
  if (SIZE == 2) {
    return {__byte_perm(of[0], of[1], 0x5140), __byte_perm(of[2], of[3], 0x5140),
            __byte_perm(of[0], of[1], 0x7362), __byte_perm(of[2], of[3], 0x7362)};
  }
  return {__byte_perm(of[0], of[1], 0x5410), __byte_perm(of[0], of[1], 0x7632),
          __byte_perm(of[2], of[3], 0x5410), __byte_perm(of[2], of[3], 0x7632)};
}

// The way back.
template <int SIZE>
__device__ __forceinline__ void separate(const uint4& words, uint32_t (&of)[4]) {
  if (SIZE == 2) {
    of[0] = __byte_perm(words.x, words.z, 0x6420);
    of[1] = __byte_perm(words.x, words.z, 0x7531);
    of[2] = __byte_perm(words.y, words.w, 0x6420);
    of[3] = __byte_perm(words.y, words.w, 0x7531);
  } else {
    of[0] = __byte_perm(words.x, words.y, 0x5410);
    of[1] = __byte_perm(words.x, words.y, 0x7632);
    of[2] = __byte_perm(words.z, words.w, 0x5410);
    of[3] = __byte_perm(words.z, words.w, 0x7632);
  }
}

// Lower *first to `found`; rare, so contention does not matter.
__device__ __forceinline__ void lower(int64_t* first, int64_t found) {
  atomicMin(reinterpret_cast<long long*>(first), static_cast<long long>(found));
}

static inline unsigned blocks_for(int64_t tasks) {
  const int64_t blocks = (tasks + WARPS - 1) / WARPS;
  return static_cast<unsigned>(blocks < (1 << 20) ? blocks : 1 << 20);  // a stride takes the rest
}
