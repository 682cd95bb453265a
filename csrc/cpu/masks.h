// Which weights go: a share of a row, of a block of columns or of the whole, or n of every m.
#pragma once

#include <cstdint>

// Entry i is chosen when keys[i] < key, or keys[i] == key and i <= last_tie.
struct Selection {
  int32_t key;
  int64_t last_tie;
};

// What a weight is ranked by.
enum class MaskScore {
  VALUE,  // its value, of either sign
  ABS,    // its magnitude
  WANDA,  // its magnitude times the scale of its column, in float32
};

// Arguments of a mask. The matrix falls into segments of `together` rows and `width` columns, the
// last of them maybe narrower; the `count` lowest scores of each are pruned (`last_count` of the
// last), ties by lowest row-major index, -0.0 equal to 0.0.
struct MaskJob {
  const void* weight;  // [rows, columns], unit stride along a row
  int64_t stride;      // elements between rows
  int64_t rows, columns;
  int dtype;  // 0 float32, 1 bfloat16, 2 float16
  MaskScore score;
  const float* scale;  // [columns] for WANDA
  uint8_t* keep;       // [rows, columns], output: 1 = kept
  void* pruned;        // as weight but contiguous, output: 0 where pruned; null: not wanted
  int64_t together;    // 1 or rows
  int64_t width;
  int64_t count, last_count;
  int threads;
};

// Fill keep and pruned; false where a score is NaN, and what was written means nothing.
bool select_mask(const MaskJob& job);

// The three ways to do it, by the size of a segment.
constexpr int64_t MAX_RANKED = 64;         // columns; ranking takes m^2 / 2 compares a group
constexpr int64_t MAX_SEARCHED = 1 << 16;  // scores: 256 KB of keys, which a second cache holds
constexpr int64_t MANY_SEARCHED = 1 << 20;  // where every thread has a segment: a third cache's
bool mask_ranked(const MaskJob& job);
bool mask_searched(const MaskJob& job);
bool mask_sampled(const MaskJob& job);
