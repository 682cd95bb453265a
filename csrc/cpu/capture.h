// Staging rings of activation rows, and the kernels that fill them. Addresses are the caller's
// tensors; nothing here owns memory. Rows are contiguous unless a stride (in elements) is given.
#pragma once

#include <cstdint>
#include <vector>

// Where captured rows go: two halves of `slots` rows each, of which one is being filled.
struct Ring {
  uint8_t* rows;          // [2, slots, row], or null: capture nothing
  int32_t* state;         // rows in the filling half, that half, unused here, rows that did not fit
  int64_t slots;
  const uint8_t* active;  // [batch], 0 = contributes nothing; null: every row does
};

// Where each of `batch` rows of `row_bytes` goes, null for rows that are not captured; moves the
// ring's cursor past them. Empty without a ring.
std::vector<uint8_t*> append_rows(const Ring& ring, int64_t batch, int64_t row_bytes);

// Append the active rows of x as they are.
void capture(const Ring& ring, const uint8_t* x, int64_t stride_bytes, int64_t batch,
             int64_t row_bytes);

// y = weight * round(x / sqrt(mean(x^2) + eps)); y is appended.
struct RmsNorm {
  const void* x;  // [batch, features]
  int64_t stride_x;
  const void* weight;  // [features]
  void* y;             // [batch, features]
  int64_t batch, features;
  float eps;
  int dtype;  // of x, weight and y: 0 float32, 1 bfloat16
  int threads;
};

void rmsnorm_capture(const RmsNorm& job, const Ring& ring);

// y = round(silu(gate)) * up; y is appended.
struct Swiglu {
  const void* gate;  // [batch, features]
  int64_t stride_gate;
  const void* up;  // [batch, features]
  int64_t stride_up;
  void* y;  // [batch, features]
  int64_t batch, features;
  int dtype;  // of gate, up and y: 0 float32, 1 bfloat16
  int threads;
};

void swiglu_capture(const Swiglu& job, const Ring& ring);
