// What bindings.cpp exposes. Addresses are the caller's tensors; nothing here owns memory.
#pragma once

#include <cstdint>
#include <string>

// Which weights of a block are pruned.
enum class Rule {
  GIVEN,      // keep is an input
  COUNT,      // the `count` lowest scores of the block, ties by lowest row-major index
  THRESHOLD,  // every score not above the count-th lowest (IST-DASLab's rule)
  GROUPS,     // n of every m columns of a row, on the weights as updated so far
};

// Arguments of one SparseGPT block solve.
struct BlockSolve {
  float* values;          // [rows, columns], in: left-looking update applied; out: final weights
  int64_t stride_values;  // elements between rows
  const float* inverse;   // [columns, columns] row-major, U_bb^-1: upper triangular
  uint8_t* keep;          // [rows, columns], 1 = kept: output, or input for GIVEN
  int64_t stride_keep;
  int64_t rows;
  int64_t columns;
  Rule rule;
  int64_t count;
  int n, m;
  int threads;
};

// Solve the block in place; returns its loss, the sum of squared errors.
double sparsegpt_block(const BlockSolve& block);

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
  float temperature;
  double top_p;
  int dtype;  // of logits: 0 float32, 1 bfloat16
  int threads;
};

void nucleus_sample(const NucleusJob& job);
