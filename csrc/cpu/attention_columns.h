// A chunk of columns of a cache in decode_attention.cpp: where its keys and values lie, and attention
// over them.
#pragma once

#include <algorithm>
#include <cstring>

#include "attention_chunk.h"
#include "decode_attention.h"

template <typename T>
RAC_INLINE Element<T>* column_of(const CacheView& cache, int64_t b, int64_t group,
                                 int64_t column) {
  return static_cast<Element<T>*>(cache.data) + b * cache.stride_batch +
         group * cache.stride_head + column * cache.stride_column;
}

// One task, or a CHUNK of one.
struct Columns {
  int64_t b, group, first, last;
};

// Keys and values that a thread reads next: memory answers while it works on those before.
template <typename T>
struct Fetched {
  Fetched(const DecodeAttention& job, const Columns& next)
      : keys(column_of<T>(job.keys, next.b, next.group, next.first)),
        values(column_of<T>(job.values, next.b, next.group, next.first)),
        columns(std::min(CHUNK, next.last - next.first)), stride_keys(job.keys.stride_column),
        stride_values(job.values.stride_column), width(job.width) {}

  __attribute__((always_inline)) void fetch(int64_t column) const {
    if (column >= columns) return;
    constexpr int64_t LINE = 64 / sizeof(Element<T>);
    for (int64_t i = 0; i < width; i += LINE) {
      __builtin_prefetch(keys + column * stride_keys + i, 0, 2);
      __builtin_prefetch(values + column * stride_values + i, 0, 2);
    }
  }

  const Element<T> *keys, *values;
  int64_t columns, stride_keys, stride_values, width;
};

template <int L, typename T, int Q>
RAC_INLINE void attend_chunk(const DecodeAttention& job, const Columns& chunk, int64_t padded,
                             const Fetched<T>* next, const float* queries, float* p, float* values,
                             float* largest, float* sum) {
  const auto& [b, group, first, last] = chunk;
  const int64_t columns = last - first;
  const uint8_t* mask = job.mask == nullptr ? nullptr : job.mask + b * job.stride_mask + first;
  const auto attended = [=](int64_t c) { return mask == nullptr || mask[c] != 0; };
  const Element<T>* key = column_of<T>(job.keys, b, group, first);
  for (int64_t c = 0; c < columns; c += L) {
    F32<L> parts[Q][L];
    for (int64_t k = 0; k < L; ++k, key += job.keys.stride_column) {
      if (next != nullptr) next->fetch(c + k);
      if (c + k < columns && attended(c + k)) {
        score<L, T, Q>(queries, padded, key, job.width, parts[0] + k);
      } else {
        for (int q = 0; q < Q; ++q) parts[q][k] = F32<L>{};
      }
    }
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      Float::store<L>(p + q * CHUNK + c, sum_halves<L, L / 2>(parts[q]) * job.scaling);
    }
  }
  for (int64_t c = 0; mask != nullptr && c < columns; ++c) {
    for (int q = 0; q < Q && mask[c] == 0; ++q) p[q * CHUNK + c] = LOWEST;
  }
  bool any = false;
  for (int q = 0; q < Q; ++q) {
    any |= soften<L>(p + q * CHUNK, columns, values + q * padded, padded, largest[q], sum[q]);
  }
  if (!any) return;
  const Element<T>* value = column_of<T>(job.values, b, group, first);
  const int64_t stride = job.values.stride_column;
  constexpr int W = PARTS / L < 2 ? 1 : 2, WIDE = L == 16 ? 4 : W;
  int64_t i = 0;
  for (; i + WIDE * L <= job.width; i += WIDE * L) {
    weigh<L, T, Q, WIDE, true>(p, value + i, stride, columns, WIDE * L, values + i, padded);
  }
  for (; i + W * L <= job.width; i += W * L) {
    weigh<L, T, Q, W, true>(p, value + i, stride, columns, W * L, values + i, padded);
  }
  if (i < job.width) {
    weigh<L, T, Q, W, false>(p, value + i, stride, columns, job.width - i, values + i, padded);
  }
}
