// Linears whose weight stays packed, or dense in 16 bits. Addresses are the caller's tensors;
// nothing here owns memory.
#pragma once

#include <cstdint>

#include "../value.h"
#include "lanes.h"

// What x is.
enum class Element { FP32, BF16, FP16 };

// What a kernel multiplies: float32 lanes; pairs of bf16, for a few tokens; or tiles of bf16.
enum class Products { LANES, PAIRS, TILES };

// y = x W^T, then scaled and shifted by row of W; x as it is or rounded to e4m3, token by token. W
// [R, C] is packed in one of two ways, or dense:
//   2:4     values [R', C/2], codes [R'/4, C/32, 4, 4], R' being R padded to whole fours: four bytes
//           for each of four rows and 32 columns, a byte saying where in 8 columns the four values
//           are, two bits each;
//   bitmap  values one after another and codes [R, ceil(C/8)], a bit a weight; offsets say where
//           the values of a row begin. READ_AFTER_VALUES bytes may be read after the last;
//   dense   values [R, C], no codes.
struct SparseLinear {
  const void* x;          // [tokens, columns]
  float* y;               // [tokens, rows]
  const uint8_t* values;
  const uint8_t* codes;    // null for dense
  const int64_t* offsets;  // [rows + 1], null but for a bitmap
  const float* scale;      // [rows] or null
  const float* bias;       // [rows] or null
  int64_t tokens, rows, columns;
  Element element;
  Value value;
  bool rounds_x;  // to e4m3 with a scale a token; FP8 alone
  int threads;
  int64_t padded;  // columns, up to whole blocks of every kernel
  Products products;
  uint16_t* rounded;  // y in bfloat16, where TILES writes it then, or null
};

constexpr int64_t PADDED_TO = 128;
constexpr int64_t READ_AFTER_VALUES = 16;

// What stays the same from call to call with a weight, as in SparseLinear.
struct LinearWeight {
  const uint8_t* values;
  const uint8_t* codes;
  const int64_t* offsets;
  const float* scale;
  int64_t rows, columns;
  Value value;
};

struct Projection {
  LinearWeight weight;
  const float* bias;
  bool rounds_x;
};

// y [tokens, rows] of x [tokens, columns]: bfloat16 if x is, else float32. By dot products along the
// rows of W, a weight decoded in a register for up to 8 tokens, or by tiles of 16 rows and tokens.
void linear(const Projection& projection, const void* x, Element element, void* y, int64_t tokens,
            int threads);

// Rows row .. row + rows of a 2:4 weight in bf16 as `dense` [rows, columns], both up to whole fours,
// by the instructions of Isa::AMX.
void unpack_rows(const LinearWeight& weight, int64_t row, int64_t rows, uint16_t* dense,
                 int threads);

// Codes of all rows from the metadata of Packed2to4, see pack_2to4.py: int16 [rows, C / 16] or, for
// values of one byte, int32 [rows, C / 32], in CUTLASS's order.
void codes_2to4(const uint8_t* metadata, uint8_t* codes, int64_t rows, int64_t columns,
                int value_bytes, int threads);

// What a kernel shares among its threads besides the job.
struct LinearScratch {
  float* panels;    // x in the kernel's order, tokens_at_once(job) after another
  uint8_t* finite;  // [tokens]: whether all of its x is; made by arrange, but for TILES
  float* x_scale;   // [tokens] if x is rounded: what it was divided by; made by arrange
};

// Tokens that a kernel takes at once.
inline int64_t tokens_at_once(const SparseLinear& job) {
  if (job.products == Products::TILES) return job.tokens > 32 ? 64 : job.tokens > 16 ? 32 : 16;
  const bool two_to_four = job.codes && !job.offsets;
  if (job.tokens > 4 && (two_to_four || job.products == Products::PAIRS)) return 8;
  return job.tokens > 2 ? 4 : job.tokens;
}

// The same product in phases, for threads that are together already: one prepares, all run their
// shares, and when all have, one finishes.
class LinearPhases {
 public:
  LinearPhases(const Projection& projection, const void* x, Element element, void* y,
               int64_t tokens, int threads);
  // The other two may take threads of their own, those the job has, unless they are together.
  void prepare(int threads);
  void run();  // in a parallel region, by each of its threads
  void finish(int threads);

 private:
  void* y_;
  SparseLinear job_;
  AlignedArray<float> sums_, panels_, x_scale_;
  AlignedArray<uint8_t> finite_;
  LinearScratch scratch_;
};

using LinearKernel = void (*)(const SparseLinear&, const LinearScratch&);
// A kernel's x of the group-th few tokens.
using ArrangeKernel = void (*)(const SparseLinear&, const LinearScratch&, int64_t group);
void arrange_baseline(const SparseLinear& job, const LinearScratch& scratch, int64_t group);
void arrange_avx2(const SparseLinear& job, const LinearScratch& scratch, int64_t group);
void arrange_avx512(const SparseLinear& job, const LinearScratch& scratch, int64_t group);
void linear_baseline(const SparseLinear& job, const LinearScratch& scratch);
void linear_avx2(const SparseLinear& job, const LinearScratch& scratch);
void linear_avx512(const SparseLinear& job, const LinearScratch& scratch);
// By pairs: W in bf16, x too.
void arrange_dots(const SparseLinear& job, const LinearScratch& scratch, int64_t group);
void linear_dots(const SparseLinear& job, const LinearScratch& scratch);
// By tiles: the same, or W in fp8 and x rounded to it.
void arrange_tiles(const SparseLinear& job, const LinearScratch& scratch, int64_t group);
void linear_tiles(const SparseLinear& job, const LinearScratch& scratch);
// Rows row .. row + 4, row being a multiple of 4, of a 2:4 weight in bf16 as [4, columns].
void unpack_four_rows(const LinearWeight& weight, int64_t row, uint16_t* dense);
