// Pre-norm decoder layers (Llama, Qwen2, Qwen3 and kin) for one new token a sequence: the kernels of
// their parts, called one after the other.
#pragma once

#include <cstdint>
#include <vector>

#include "capture.h"
#include "decode_attention.h"
#include "linear_sparse.h"

struct NormWeight {
  const void* weight;  // null: there is no such norm
  float eps;
};

// What stays the same from step to step. `dtype` 0 float32, 1 bfloat16: of activations and norms.
struct DecoderLayer {
  NormWeight norm, mlp_norm;          // [hidden]
  NormWeight query_norm, key_norm;    // [width]: of every head, before it is rotated
  Projection qkv, output, gate_up, down;
  int64_t groups, per_group, width;
  float scaling;
  int dtype;

  int64_t hidden() const { return qkv.weight.columns; }
  int64_t features() const { return gate_up.weight.rows / 2; }
};

// One step: x + attention(norm(x)), then the same plus mlp(mlp_norm(of that)).
struct LayerStep {
  const void* x;  // [batch, hidden], contiguous
  void* y;        // likewise; may be x
  const void* cosine;  // [batch, width]
  const void* sine;
  int64_t stride_rotary;
  CacheView keys, values;  // [batch, groups, columns, width]; the last column is written
  const uint8_t* mask;     // [batch, columns] or null
  int64_t stride_mask;
  int64_t batch, columns;
  int threads;
  Ring rings[4];  // for what enters q, k and v; o; gate and up; down
};

// Layers one after the other: the i-th takes steps[i]. Batch, columns and threads are the same in
// all steps.
void decode_layers(const std::vector<const DecoderLayer*>& layers,
                   const std::vector<LayerStep>& steps);

// y = a + b, `count` elements of a layer's dtype; y may be one of them.
void residual_add(const void* a, const void* b, void* y, int64_t count, int dtype);
