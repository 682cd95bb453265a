// Vectors of L lanes: 16 for AVX-512, 8 for AVX2, 4 for the baseline: one register each.
// A lane is a row (SparseGPT) or a group of m (masks), so lanes never exchange data and results do
// not depend on L.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "isa.h"

typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));

template <int L>
struct Lanes;
template <>
struct Lanes<4> {
  typedef f32x4 F32;
  typedef i32x4 I32;
};
// Without `aligned`, code for an older CPU would align them to 16 bytes and AVX code would fault.
template <>
struct Lanes<8> {
  typedef float F32 __attribute__((vector_size(32), aligned(32)));
  typedef int32_t I32 __attribute__((vector_size(32), aligned(32)));
};
template <>
struct Lanes<16> {
  typedef float F32 __attribute__((vector_size(64), aligned(64)));
  typedef int32_t I32 __attribute__((vector_size(64), aligned(64)));
};

template <int L>
using F32 = typename Lanes<L>::F32;
template <int L>
using I32 = typename Lanes<L>::I32;

// An array on 64-byte boundaries (std::vector drops the alignment of such a type), zeroed unless
// its own threads are to touch its pages first.
template <typename T>
class AlignedArray {
 public:
  explicit AlignedArray(int64_t size, bool zeroed = true) {
    const int64_t bytes = (size * static_cast<int64_t>(sizeof(T)) / 64 + 1) * 64;
    memory_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    if (!memory_) throw std::bad_alloc();
    if (zeroed) std::memset(static_cast<void*>(memory_.get()), 0, bytes);
  }
  T* get() { return memory_.get(); }
  T& operator[](int64_t i) { return memory_.get()[i]; }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T[], Free> memory_;
};

// Column r of a 4x4 tile (stride in elements) becomes out[r].
RAC_INLINE void transpose_4x4(const float* from, int64_t stride, f32x4 (&out)[4]) {
  f32x4 a, b, c, d;
  std::memcpy(&a, from, 16);
  std::memcpy(&b, from + stride, 16);
  std::memcpy(&c, from + 2 * stride, 16);
  std::memcpy(&d, from + 3 * stride, 16);
  const f32x4 ab_low = __builtin_shuffle(a, b, (i32x4){0, 4, 1, 5});
  const f32x4 ab_high = __builtin_shuffle(a, b, (i32x4){2, 6, 3, 7});
  const f32x4 cd_low = __builtin_shuffle(c, d, (i32x4){0, 4, 1, 5});
  const f32x4 cd_high = __builtin_shuffle(c, d, (i32x4){2, 6, 3, 7});
  out[0] = __builtin_shuffle(ab_low, cd_low, (i32x4){0, 1, 4, 5});
  out[1] = __builtin_shuffle(ab_low, cd_low, (i32x4){2, 3, 6, 7});
  out[2] = __builtin_shuffle(ab_high, cd_high, (i32x4){0, 1, 4, 5});
  out[3] = __builtin_shuffle(ab_high, cd_high, (i32x4){2, 3, 6, 7});
}

// Transpose a 4x4 tile: column r of `from` becomes row r of `to`.
RAC_INLINE void transpose_4x4(const float* from, int64_t stride_from, float* to,
                              int64_t stride_to) {
  f32x4 out[4];
  transpose_4x4(from, stride_from, out);
  for (int i = 0; i < 4; ++i) std::memcpy(to + i * stride_to, &out[i], 16);
}

// tile[column] holds that column of `rows` <= L rows of a row-major matrix; missing lanes are 0.
template <int L>
RAC_INLINE void load_columns(const float* matrix, int64_t stride, int64_t rows, int64_t columns,
                             F32<L>* tile) {
  float* lanes = reinterpret_cast<float*>(tile);
  if (rows == L) {
    const int64_t whole = columns / 4 * 4;
    for (int64_t c = 0; c < whole; c += 4) {
      for (int r = 0; r < L; r += 4) {
        transpose_4x4(matrix + r * stride + c, stride, lanes + c * L + r, L);
      }
    }
    for (int64_t c = whole; c < columns; ++c) {
      for (int r = 0; r < L; ++r) lanes[c * L + r] = matrix[r * stride + c];
    }
    return;
  }
  std::memset(lanes, 0, columns * sizeof(F32<L>));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) lanes[c * L + r] = matrix[r * stride + c];
  }
}

// The way back: the first `rows` lanes of the tile become rows of a row-major matrix.
template <int L>
RAC_INLINE void store_columns(const F32<L>* tile, int64_t rows, int64_t columns, float* matrix,
                              int64_t stride) {
  const float* lanes = reinterpret_cast<const float*>(tile);
  const int64_t whole = rows == L ? columns / 4 * 4 : 0;
  for (int64_t c = 0; c < whole; c += 4) {
    for (int r = 0; r < L; r += 4) {
      transpose_4x4(lanes + c * L + r, L, matrix + r * stride + c, stride);
    }
  }
  for (int64_t c = whole; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) matrix[r * stride + c] = lanes[c * L + r];
  }
}

// Four columns of keep as the bytes of a word, for L rows; `pruned` as below.
template <int L>
RAC_INLINE I32<L> keep_word(const I32<L>* pruned, int step) {
  return (~pruned[0] & 1) | ((~pruned[step] & 1) << 8) | ((~pruned[2 * step] & 1) << 16) |
         ((~pruned[3 * step] & 1) << 24);
}

// keep[row][column] = 1 where pruned[column * step][row] is 0.
template <int L>
RAC_INLINE void store_keep(const I32<L>* pruned, int step, int64_t rows, int64_t columns,
                           uint8_t* keep, int64_t stride) {
  int64_t c = 0;
  for (; rows == L && c + 16 <= columns; c += 16) {
    I32<L> words[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) words[i] = keep_word<L>(pruned + (c + 4 * i) * step, step);
    for (int r = 0; r < L; r += 4) {
      f32x4 bytes[4];
      transpose_4x4(reinterpret_cast<const float*>(words) + r, L, bytes);
      for (int i = 0; i < 4; ++i) std::memcpy(keep + (r + i) * stride + c, &bytes[i], 16);
    }
  }
  for (; c + 4 <= columns; c += 4) {
    const I32<L> word = keep_word<L>(pruned + c * step, step);
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t bytes = word[r];
      std::memcpy(keep + r * stride + c, &bytes, 4);
    }
  }
  for (; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) keep[r * stride + c] = pruned[c * step][r] == 0;
  }
}

// pruned[i] = -1 in the lanes where keys[i] is among the n lowest of keys[0..m), ties by lowest i.
// Counts, for each key, the keys that come before it: m (m - 1) / 2 compares, no branches.
template <int L>
RAC_INLINE void prune_lowest(const I32<L>* keys, int m, int n, I32<L>* pruned) {
  for (int i = 0; i < m; ++i) pruned[i] = I32<L>{};
  for (int i = 0; i < m; ++i) {
    I32<L> before_i = pruned[i];
    const I32<L> key = keys[i];
    for (int j = i + 1; j < m; ++j) {
      const I32<L> j_first = keys[j] < key;  // -1 or 0
      before_i -= j_first;
      pruned[j] += 1 + j_first;
    }
    pruned[i] = before_i < n;
  }
}
