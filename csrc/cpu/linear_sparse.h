// Linears whose weight stays packed. Addresses are the caller's tensors; nothing here owns memory.
#pragma once

#include <cstdint>

#include "elements.h"

// What a packed value is, and what x is.
enum class Value { BF16, FP16, INT8, FP8 };
enum class Element { FP32, BF16, FP16 };

// y = x W^T, then scaled and shifted by row of W. W [R, C] is packed in one of two ways:
//   2:4     values [R', C/2], codes [R'/4, C/32, 4, 4], R' being R padded to whole fours: four bytes
//           for each of four rows and 32 columns, a byte saying where in 8 columns the four values
//           are, two bits each;
//   bitmap  values one after another and codes [R, ceil(C/8)], a bit a weight; offsets say where
//           the values of a row begin. 16 bytes may be read after the last value.
struct SparseLinear {
  const void* x;          // [tokens, columns]
  float* y;               // [tokens, rows]
  const uint8_t* values;
  const uint8_t* codes;
  const int64_t* offsets;  // [rows + 1], null for 2:4
  const float* scale;      // [rows] or null
  const float* bias;       // [rows] or null
  int64_t tokens, rows, columns;
  Element element;
  Value value;
  int threads;
  int64_t padded;  // columns, up to whole blocks of every kernel
};

constexpr int64_t PADDED_TO = 128;

// By dot products along the rows of W, a weight decoded in a register for up to 8 tokens.
void linear_few(const SparseLinear& job);

// By sums of rows of x^T, for many tokens.
void linear_many(const SparseLinear& job);

// y [tokens, rows] rounded to bfloat16.
void linear_round(const float* y, uint16_t* rounded, int64_t count, int threads);

// Codes of all rows from the metadata of Packed2to4, see pack_2to4.py: int16 [rows, C / 16] or, for
// values of one byte, int32 [rows, C / 32], in CUTLASS's order.
void codes_2to4(const uint8_t* metadata, uint8_t* codes, int64_t rows, int64_t columns,
                int value_bytes, int threads);

// What a kernel shares among its threads besides the job.
struct LinearScratch {
  float* panels;      // x in another order: of whole fours or eights of tokens, or whole panels
  uint8_t* finite;    // [tokens]: whether all of its x is; made by arrange
  const float* x;     // linear_many: [tokens, padded], zeros from column C on
  int64_t* position;  // linear_many, bitmap: [rows], the first value of each row not yet used
};

constexpr int64_t GROUP = 256;  // tokens of which panels are made at a time

// Tokens that linear_few takes at once.
inline int64_t few_at_once(const SparseLinear& job) {
  if (job.tokens > 4 && !job.offsets) return 8;
  return job.tokens > 2 ? 4 : job.tokens;
}

// Tokens in a panel of linear_many.
inline int64_t panel_width(int64_t tokens) { return tokens > 32 ? 64 : tokens > 16 ? 32 : 16; }

using LinearKernel = void (*)(const SparseLinear&, const LinearScratch&);
// A kernel's x of the group-th few tokens.
using ArrangeKernel = void (*)(const SparseLinear&, const LinearScratch&, int64_t group);
void arrange_baseline(const SparseLinear& job, const LinearScratch& scratch, int64_t group);
void arrange_avx2(const SparseLinear& job, const LinearScratch& scratch, int64_t group);
void arrange_avx512(const SparseLinear& job, const LinearScratch& scratch, int64_t group);
void few_baseline(const SparseLinear& job, const LinearScratch& scratch);
void few_avx2(const SparseLinear& job, const LinearScratch& scratch);
void few_avx512(const SparseLinear& job, const LinearScratch& scratch);
void many_baseline(const SparseLinear& job, const LinearScratch& scratch);
void many_avx2(const SparseLinear& job, const LinearScratch& scratch);
void many_avx512(const SparseLinear& job, const LinearScratch& scratch);

// -1 where a lane is infinite or no number, else 0.
RAC_INLINE i32x4 not_finite(f32x4 x) {
  return (reinterpret_cast<i32x4>(x) & 0x7f800000) == 0x7f800000;
}

// Call `run(Float())` or another of elements.h for what x is.
template <typename Run>
RAC_INLINE void with_element(Element element, Run run) {
  if (element == Element::BF16) run(BFloat16());
  else if (element == Element::FP16) run(Float16());
  else run(Float());
}
