// What the kernels that use AMX have in common.
#pragma once

#include <atomic>
#include <cstdint>

#include "isa.h"

// What a thread says of its tile registers before it uses them: all are 16 rows of 64 bytes.
struct alignas(64) TileShapes {
  constexpr TileShapes() {
    for (int tile = 0; tile < 8; ++tile) {
      bytes[tile] = 64;
      rows[tile] = 16;
    }
  }
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

// Not on the stack: compilers think that only 8 bytes of it are read.
static constexpr TileShapes TILE_SHAPES;

// To GCC a tile load is assembly that reads no memory: what it is to read must be written before.
RAC_INLINE void before_tile_loads() { std::atomic_signal_fence(std::memory_order_seq_cst); }
