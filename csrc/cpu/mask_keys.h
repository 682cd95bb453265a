// Scores as integers that order as the scores do, and what is written when they are decided on.
//
// The loops are plain: each is inlined into functions for every instruction set (isa.h), and the
// compiler makes vectors of them there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "isa.h"
#include "masks.h"

constexpr int32_t INFINITE = 0x7f800000;  // bits of +Inf: greater magnitudes are NaN

RAC_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

RAC_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// The bits of element i as float32.
template <int DTYPE>
RAC_INLINE uint32_t bits_at(const void* from, int64_t i) {
  if constexpr (DTYPE == 0) return static_cast<const uint32_t*>(from)[i];
  const uint32_t half = static_cast<const uint16_t*>(from)[i];
  if constexpr (DTYPE == 1) return half << 16;
  const uint32_t magnitude = (half & 0x7fff) << 13, exponent = magnitude & 0x0f800000;
  // A subnormal gets the exponent of 2^-14 and loses 2^-14: normal numbers all along.
  const uint32_t subnormal =
      bits_of(float_of(magnitude + (113u << 23)) - float_of(113u << 23));
  const uint32_t normal = magnitude + (exponent == 0x0f800000 ? 224u << 23 : 112u << 23);
  return (half & 0x8000) << 16 | (exponent == 0 ? subnormal : normal);
}

// keys[i] for `count` weights of a row; true if a score is NaN. Sign and magnitude become two's
// complement, which knows no -0.
template <int DTYPE, MaskScore SCORE>
RAC_INLINE bool keys_of(const void* __restrict from, const float* __restrict scale, int64_t count,
                        int32_t* __restrict keys) {
  int32_t nan = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits = bits_at<DTYPE>(from, i);
    if (SCORE == MaskScore::WANDA) bits = bits_of(float_of(bits & 0x7fffffff) * scale[i]);
    const int32_t magnitude = bits & 0x7fffffff;
    const int32_t sign = SCORE == MaskScore::VALUE ? static_cast<int32_t>(bits) >> 31 : 0;
    nan |= magnitude > INFINITE;
    keys[i] = (magnitude ^ sign) - sign;
  }
  return nan != 0;
}

template <int DTYPE>
RAC_INLINE bool keys_by_score(const MaskJob& job, const void* from, int64_t column, int64_t count,
                              int32_t* keys) {
  if (job.score == MaskScore::VALUE) {
    return keys_of<DTYPE, MaskScore::VALUE>(from, nullptr, count, keys);
  }
  if (job.score == MaskScore::ABS) {
    return keys_of<DTYPE, MaskScore::ABS>(from, nullptr, count, keys);
  }
  return keys_of<DTYPE, MaskScore::WANDA>(from, job.scale + column, count, keys);
}

RAC_INLINE const void* weight_at(const MaskJob& job, int64_t row, int64_t column) {
  const int64_t size = job.dtype == 0 ? 4 : 2;
  return static_cast<const char*>(job.weight) + (row * job.stride + column) * size;
}

// The keys of weights [row, column .. column + count); true if a score is NaN.
RAC_INLINE bool read_keys(const MaskJob& job, int64_t row, int64_t column, int64_t count,
                          int32_t* keys) {
  const void* from = weight_at(job, row, column);
  if (job.dtype == 0) return keys_by_score<0>(job, from, column, count, keys);
  if (job.dtype == 1) return keys_by_score<1>(job, from, column, count, keys);
  return keys_by_score<2>(job, from, column, count, keys);
}

template <typename Bits, typename Flag>
RAC_INLINE void zero_where(const void* weight, void* pruned, const Flag* __restrict flags,
                           Flag limit, int64_t count) {
  const Bits* __restrict from = static_cast<const Bits*>(weight);
  Bits* __restrict to = static_cast<Bits*>(pruned);
  // A conditional load would not become a vector's: all are loaded, and some masked out.
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] & -static_cast<Bits>(flags[i] >= limit);
}

// pruned = 0 where flags < limit, else the weight.
template <typename Flag>
RAC_INLINE void write_pruned(const MaskJob& job, int64_t row, int64_t column, int64_t count,
                             const Flag* flags, Flag limit) {
  if (job.pruned == nullptr) return;
  const void* from = weight_at(job, row, column);
  const int64_t at = row * job.columns + column;
  if (job.dtype == 0) {
    zero_where<uint32_t>(from, static_cast<uint32_t*>(job.pruned) + at, flags, limit, count);
  } else {
    zero_where<uint16_t>(from, static_cast<uint16_t*>(job.pruned) + at, flags, limit, count);
  }
}

RAC_INLINE void write_below(const MaskJob& job, int64_t row, int64_t column, int64_t count,
                            const int32_t* __restrict keys, int32_t limit) {
  uint8_t* __restrict keep = job.keep + row * job.columns + column;
  for (int64_t i = 0; i < count; ++i) keep[i] = keys[i] >= limit;
  write_pruned<int32_t>(job, row, column, count, keys, limit);
}

// Write weights [row, column .. column + count), of which the first is the index-th of its segment.
RAC_INLINE void write_selected(const MaskJob& job, int64_t row, int64_t column, int64_t count,
                               const int32_t* keys, int64_t index, Selection chosen) {
  const int64_t ties = std::clamp<int64_t>(chosen.last_tie + 1 - index, 0, count);
  if (ties > 0) write_below(job, row, column, ties, keys, chosen.key + 1);
  if (ties < count) write_below(job, row, column + ties, count - ties, keys + ties, chosen.key);
}
