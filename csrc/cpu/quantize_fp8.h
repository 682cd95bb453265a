// Rows to e4m3, a scale each. Addresses are the caller's tensors; nothing here owns memory.
#pragma once

#include <cstdint>

struct QuantizeRows {
  const void* x;        // [rows, columns]
  int64_t stride;       // elements between rows
  uint8_t* values;      // e4m3 [rows, columns]
  float* scale;         // [rows]
  int64_t rows, columns;
  int dtype;            // of x: 0 float32, 1 bfloat16, 2 float16
  bool bfloat16_scale;  // rounded to bfloat16 before it is used
  int threads;
};

void quantize_fp8_rows(const QuantizeRows& job);
