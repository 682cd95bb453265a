// Attention of one new token a sequence over a key/value cache; addresses are the caller's tensors.
// Heads and features of query, key, value and output lie one after the other: only their rows have
// strides, in elements.
#pragma once

#include <cstdint>

#include "capture.h"
#include "lanes.h"
#include "team.h"

// [batch, heads, columns, width]: strides in elements, elements of a column are neighbours.
struct CacheView {
  void* data;
  int64_t stride_batch, stride_head, stride_column;
};

struct DecodeAttention {
  const void* query;  // [batch, groups * per_group, width]
  int64_t stride_query;
  const void* key;  // [batch, groups, width]: written to the last column first; null: it is there
  int64_t stride_key;
  const void* value;
  int64_t stride_value;
  const void* cosine;  // [batch, width], rotates query and key; null: they are rotated
  const void* sine;
  int64_t stride_rotary;
  CacheView keys, values;
  const uint8_t* mask;  // [batch, columns], 0 = not attended over; null: every column is
  int64_t stride_mask;
  void* output;  // [batch, groups * per_group, width], contiguous; appended to a ring
  float scaling;
  int64_t batch, groups, per_group, columns, width;
  int dtype;  // of all but the mask: 0 float32, 1 bfloat16
  int threads;
};

void decode_attention(const DecodeAttention& job, const Ring& ring);

// What the tasks of decode_attention.cpp leave behind, and what threads work in.
struct AttentionScratch {
  AttentionScratch(const DecodeAttention& job, int threads);

  int64_t splits, padded;
  int64_t size;  // of a thread's part of `work`
  AlignedArray<float> sums;  // of every task: [per_group, padded], then largest and sum of each
  AlignedArray<float> work;  // of every thread: queries [per_group, padded], p [., CHUNK], a row
};

// The same by a team that is together already, all of it; nothing is appended to a ring.
void decode_attention(const DecodeAttention& job, AttentionScratch& scratch, const Team& team);
