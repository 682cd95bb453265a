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

// Arguments of an n:m selection: keep[g * m + i] = 0 for the n lowest of each group of m contiguous
// scores, else 1; ties by lowest index, no NaN.
struct MaskJob {
  const void* scores;  // [groups, m]
  uint8_t* keep;       // [groups, m]
  int64_t groups;
  int n, m;
  int dtype;  // 0 float32, 1 bfloat16, 2 float16
  int threads;
};

void select_mask(const MaskJob& job);
