// The instructions of AMX that csrc/cpu calls, as Intel's manual defines them, for any CPU. What
// the manual forbids is a trap: tiles that are not configured, shapes that do not fit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

// The layout that ldtilecfg reads.
struct Shapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

struct Tiles {
  Shapes shapes = {};  // palette 0: not configured
  float word[8][16][16];
};

inline Tiles& tiles() {
  static thread_local Tiles own;
  return own;
}

inline void require(bool condition) {
  if (!condition) __builtin_trap();
}

inline void tile_loadconfig(const void* from) {
  Shapes& shapes = tiles().shapes;
  std::memcpy(&shapes, from, sizeof(shapes));
  require(shapes.palette == 1 && shapes.start_row == 0);
  for (uint8_t byte : shapes.reserved) require(byte == 0);
  for (int tile = 0; tile < 16; ++tile) {
    const int bytes = shapes.bytes[tile], rows = shapes.rows[tile];
    require(bytes <= 64 && rows <= 16 && (bytes == 0) == (rows == 0) && (tile < 8 || rows == 0));
  }
  std::memset(tiles().word, 0, sizeof(tiles().word));
}

inline void tile_release() { tiles() = {}; }

inline int rows_of(int tile) {
  require(tiles().shapes.palette == 1 && tiles().shapes.rows[tile] > 0);
  return tiles().shapes.rows[tile];
}

inline void tile_zero(int tile) {
  rows_of(tile);
  std::memset(tiles().word[tile], 0, sizeof(tiles().word[tile]));
}

inline void tile_loadd(int tile, const void* from, int64_t stride) {
  tile_zero(tile);
  for (int row = 0; row < rows_of(tile); ++row) {
    const auto* bytes = static_cast<const char*>(from) + row * stride;
    std::memcpy(tiles().word[tile][row], bytes, tiles().shapes.bytes[tile]);
  }
}

inline void tile_stored(int tile, void* to, int64_t stride) {
  for (int row = 0; row < rows_of(tile); ++row) {
    auto* bytes = static_cast<char*>(to) + row * stride;
    std::memcpy(bytes, tiles().word[tile][row], tiles().shapes.bytes[tile]);
  }
}

inline float flush(float value) {
  return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value;
}

// The half of a word that holds one of its two bfloat16 values.
inline float widen(float word, int which) {
  uint32_t bits;
  std::memcpy(&bits, &word, sizeof(bits));
  bits = which == 0 ? bits << 16 : bits & 0xffff0000u;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return flush(value);
}

// Even and odd products are summed apart, each rounded to nearest; subnormals are zeros.
inline void tile_dpbf16ps(int to, int left, int right) {
  const Shapes& shapes = tiles().shapes;
  const int words = shapes.bytes[left] / 4, columns = shapes.bytes[right] / 4;
  require(rows_of(to) == rows_of(left) && rows_of(right) == words);
  require(shapes.bytes[to] == shapes.bytes[right] && to != left && to != right && left != right);
  for (int m = 0; m < rows_of(to); ++m) {
    for (int n = 0; n < columns; ++n) {
      float sum[2] = {};
      for (int k = 0; k < words; ++k) {
        const float a = tiles().word[left][m][k], b = tiles().word[right][k][n];
        for (int i : {0, 1}) sum[i] = flush(std::fma(widen(a, i), widen(b, i), sum[i]));
      }
      float& total = tiles().word[to][m][n];
      total = flush(flush(total) + flush(sum[0] + sum[1]));
    }
  }
}

}  // namespace emulated

#define _tile_dpbf16ps emulated::tile_dpbf16ps
#define _tile_loadconfig emulated::tile_loadconfig
#define _tile_loadd emulated::tile_loadd
#define _tile_release emulated::tile_release
#define _tile_stored emulated::tile_stored
#define _tile_zero emulated::tile_zero
