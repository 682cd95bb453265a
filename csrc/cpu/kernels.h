// What bindings.cpp exposes. Addresses are the caller's tensors; nothing here owns memory.
#pragma once

#include <cstdint>
#include <string>

// Rows of H in a block of the packed layout: block b holds rows [128 b, min(128 (b + 1), D)) and
// columns [0, min(128 (b + 1), D)), row-major, one block after the other.
constexpr int64_t PACKED_ROWS = 128;

// Arguments of H += X^T diag(w) X on the lower triangle.
struct TriangleUpdate {
  float* hessian;          // [D, D], or packed
  int64_t stride_hessian;  // elements between rows, unless packed
  bool packed;
  const void* x;  // [T, D]
  int64_t stride_x;
  int dtype;                // of x: 0 float32, 1 bfloat16, 2 float16
  const float* row_weight;  // [T] or null: all 1
  int64_t rows;             // T
  int64_t features;         // D
  int threads;
};

void hessian_accumulate(const TriangleUpdate& job);

// Arguments of a draw of one id a row.
struct NucleusJob {
  const void* logits;  // [batch, vocabulary], contiguous rows
  int64_t stride;      // elements between rows
  const float* uniform;  // [batch], in [0, 1)
  int64_t* ids;          // [batch], output: -1 where a row has NaN, +Inf, or nothing but -Inf
  int64_t batch, vocabulary;
  float temperature;  // 0: the most likely id, whatever top_p and uniform are
  double top_p;
  int dtype;  // of logits: 0 float32, 1 bfloat16
  int threads;
};

void nucleus_sample(const NucleusJob& job);
