// Linears whose weight stays packed. Addresses are the caller's tensors; nothing here owns memory.
#pragma once

#include <cstdint>

// What a packed value is.
enum class Value { BF16, FP16, INT8, FP8 };

// y = x W^T, then scaled and shifted by row of W. W [R, C] is packed in one of two ways:
//   2:4     values [R', C/2], codes [R'/4, C/32, 4, 4], R' being R padded to whole fours: four bytes
//           for each of four rows and 32 columns, a byte saying where in 8 columns the four values
//           are, two bits each;
//   bitmap  values one after another and codes [R, ceil(C/8)], a bit a weight; offsets say where
//           the values of a row begin. 16 bytes may be read after the last value.
struct SparseLinear {
  const float* x;         // [tokens, padded], zeros from column C on
  float* y;               // [tokens, rows]
  const uint8_t* values;
  const uint8_t* codes;
  const int64_t* offsets;  // [rows + 1], null for 2:4
  const float* scale;      // [rows] or null
  const float* bias;       // [rows] or null
  int64_t tokens, rows, columns;
  int64_t padded;  // columns, up to whole sixteens
  Value value;
  int threads;
};

// By dot products along the rows of W, a weight decoded in a register for up to 4 tokens. Zeros are
// multiplied too, as in a dense product.
void linear_few(const SparseLinear& job);

// By sums of rows of x^T: zeros are left out.
void linear_many(const SparseLinear& job);

// Codes of all rows from the metadata of Packed2to4, see pack_2to4.py: int16 [rows, C / 16] or, for
// values of one byte, int32 [rows, C / 32], in CUTLASS's order.
void codes_2to4(const uint8_t* metadata, uint8_t* codes, int64_t rows, int64_t columns,
                int value_bytes, int threads);

// What a kernel shares among its threads besides the job.
struct LinearScratch {
  int64_t* position;  // [rows]: the first value of each row that is not yet used; bitmap
  float* panels;      // x in another order: of whole fours of tokens, or whole panels
};

constexpr int64_t GROUP = 256;  // tokens of which panels are made at a time

// Tokens in a panel of linear_many.
inline int64_t panel_width(int64_t tokens) { return tokens > 32 ? 64 : tokens > 16 ? 32 : 16; }

using LinearKernel = void (*)(const SparseLinear&, const LinearScratch&);
void few_baseline(const SparseLinear& job, const LinearScratch& scratch);
void few_avx2(const SparseLinear& job, const LinearScratch& scratch);
void few_avx512(const SparseLinear& job, const LinearScratch& scratch);
void many_baseline(const SparseLinear& job, const LinearScratch& scratch);
void many_avx2(const SparseLinear& job, const LinearScratch& scratch);
void many_avx512(const SparseLinear& job, const LinearScratch& scratch);
