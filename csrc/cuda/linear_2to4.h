// Linears with 2:4 weights on a GPU, for the few tokens of a decode step. Addresses are device
// addresses; nothing here owns memory.
#pragma once

#include <cstdint>

#include "layout_2to4.h"

namespace linear_2to4 {

// y[T, R] = x[T, C] W^T, times scale, plus bias; sums in float32.
struct Arguments {
  const void* weight;   // strips and chunks of layout_2to4.h, 16-byte aligned
  const void* x;        // [T, C] of 16-bit values, 16-byte aligned, C and stride multiples of 8
  void* y;              // [T, R], like x
  const float* scale;   // [R] or null
  const void* bias;     // [R] or null
  float* partials;      // Plan::partials() floats, 16-byte aligned
  int* arrived;         // Plan::blocks zeros; zeros again afterwards
  int64_t stride;       // of x, in elements
  int64_t tokens, rows, columns;
  bool bias_is_float;   // else like x
};

// Runs on `stream` of the current device; dtype: 1 bfloat16, 2 float16. Returns a cudaError_t.
int launch(const Arguments& arguments, const Plan& plan, int dtype, void* stream);

struct Limits {
  int sms, shared_block, shared_sm;
};
int limits(int device, Limits* found);  // a cudaError_t

// A number that is another for every capture of `stream` into a graph, 0 outside of captures.
int capture_of(void* stream, unsigned long long* capture);  // a cudaError_t

}  // namespace linear_2to4
