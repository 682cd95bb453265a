// The count-th smallest of keys that lie in a cache: narrowed down by counting keys below a pivot,
// which vectors do at a fraction of a cycle a key, until few enough are left to be copied out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "mask_keys.h"

constexpr int64_t LEAST = std::numeric_limits<int32_t>::min();     // below every key
constexpr int64_t GREATEST = std::numeric_limits<int32_t>::max();  // above every key but of a NaN
constexpr int64_t SCANNED = 32;                                    // keys looked at together
constexpr int STEPS = 8;                                           // to close an open side

// Where the answer of the next row is looked for first: rows of a matrix resemble each other.
struct Hint {
  int32_t key = 0;
  double step = 0;  // how far, in scores, from there to the other side of the answer
};

// Scores are finite where this matters: what comes of others is clamped between two keys.
RAC_INLINE double score_of(int64_t key) {
  const float magnitude = float_of(static_cast<uint32_t>(std::abs(key)));
  return key < 0 ? -magnitude : magnitude;
}

RAC_INLINE int64_t key_of(double score) {
  const int64_t magnitude = bits_of(static_cast<float>(std::abs(score)));
  return score < 0 ? -magnitude : magnitude;
}

RAC_INLINE int32_t count_below(const int32_t* keys, int64_t size, int32_t pivot) {
  int32_t below = 0;
  for (int64_t i = 0; i < size; ++i) below += keys[i] < pivot;
  return below;
}

RAC_INLINE int32_t count_within(const int32_t* keys, int64_t size, int32_t low, int32_t high) {
  int32_t within = 0;
  for (int64_t i = 0; i < size; ++i) within += (keys[i] >= low) & (keys[i] < high);
  return within;
}

// Copy the keys of [low, high); `found` has room for all of them and one more.
RAC_INLINE int64_t copy_within(const int32_t* keys, int64_t size, int32_t low, int32_t high,
                               int32_t* found) {
  int64_t copied = 0;
  for (int64_t start = 0; start < size; start += SCANNED) {
    const int64_t end = std::min(start + SCANNED, size);
    const bool whole = end - start == SCANNED;
    if (whole && count_within(keys + start, SCANNED, low, high) == 0) continue;
    for (int64_t i = start; i < end; ++i) {
      found[copied] = keys[i];
      copied += (keys[i] >= low) & (keys[i] < high);
    }
  }
  return copied;
}

// The index of the n-th key, from 1, that equals `key`.
RAC_INLINE int64_t index_of(const int32_t* keys, int64_t size, int32_t key, int64_t n) {
  int64_t start = 0;
  for (; start + SCANNED <= size; start += SCANNED) {
    int32_t equal = 0;
    for (int64_t i = 0; i < SCANNED; ++i) equal += keys[start + i] == key;
    if (equal >= n) break;
    n -= equal;
  }
  for (int64_t i = start; i < size; ++i) {
    if (keys[i] == key && --n == 0) return i;
  }
  return -1;  // not reached: there are n of them
}

// How many keys are copied out at most.
RAC_INLINE int64_t few_of(int64_t size) { return std::max<int64_t>(SCANNED, size / 64); }

// Choose the `count` lowest of `size` keys, 1 <= count <= size, ties by lowest index. `scratch` has
// room for few_of(size) keys and one more.
RAC_INLINE Selection search_keys(const int32_t* keys, int64_t size, int64_t count, Hint& hint,
                                 int32_t* scratch) {
  int64_t low = LEAST, high = GREATEST;  // the answer is in [low, high)
  int64_t below = 0, reached = size;     // keys below low, keys below high
  int64_t pivot = hint.key;
  double step = hint.step;
  const int64_t few = few_of(size);
  for (int turn = 0; reached - below > few && high - low > 1; ++turn) {
    pivot = std::clamp(pivot, low + 1, high - 1);
    const int64_t found = count_below(keys, size, static_cast<int32_t>(pivot));
    if (found < count) {
      low = pivot, below = found;
    } else {
      high = pivot, reached = found;
    }
    if (turn < STEPS && (low == LEAST || high == GREATEST)) {  // one side is open: close it
      pivot = key_of(high == GREATEST ? score_of(low) + step : score_of(high) - step);
      step *= 4;
    } else if (turn % 2 == 1) {
      pivot = low + (high - low) / 2;
    } else {
      const double share = static_cast<double>(count - below) / (reached - below);
      pivot = key_of(score_of(low) + share * (score_of(high) - score_of(low)));
    }
  }
  int64_t wanted = count - below, equal = reached - below;
  int32_t key = static_cast<int32_t>(low);
  if (high - low > 1) {
    const int64_t copied = copy_within(keys, size, key, static_cast<int32_t>(high), scratch);
    std::nth_element(scratch, scratch + wanted - 1, scratch + copied);
    key = scratch[wanted - 1];
    wanted -= count_below(scratch, copied, key);
    equal = std::count(scratch, scratch + copied, key);
  }
  hint.step = hint.step / 2 + std::min(std::abs(score_of(key) - score_of(hint.key)), 1e30);
  hint.key = key;
  if (wanted == equal) return {key, std::numeric_limits<int64_t>::max() - 1};
  return {key, index_of(keys, size, key, wanted)};
}
