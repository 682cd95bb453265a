// What x, packed values and codes are as lanes. Included, like linear_rows.h, by
// linear_baseline.cpp, linear_avx2.cpp and linear_avx512.cpp, each of which defines an instruction
// set `Set` with
//   L                        lanes, 8 or 16
//   spread(values, shuffle, ...)  words with the 16-bit values of 8 columns in their upper halves
//                            (bitmap), 16 bytes being read; for L = 16 of two bytes of the bitmap
//   codes<GROUPS, HALF>(from)  2:4: a block's codes of four rows, lane by lane, the first two bits
//                            lowest, a word being GROUPS groups; HALF: of the first half of a block
//   places<TB>(codes, i)     the codes with the i-th two bits, i = 0..7, lowest: shifts, but for one or
//                            two tokens products: shifts wait for the ports that shuffles need,
//                            products for those that multiply with x
//   lower_halves(words)      2^12 times the lower 16 bits, signed
//   pick(x, codes)           of each quarter of four x the one that the low two bits of a code say
//   keep(x)                  x is used more than once: load it once, into a register
//   load_fp16(from), widen_fp16(words)  L values of fp16 as float32, from memory or from the upper
//                            halves of words
#pragma once

#include <cstdint>
#include <cstring>

#include "elements.h"
#include "linear_sparse.h"
#include "linear_tables.h"

// fp16 in the upper halves of words, where no instruction widens it.
template <int L>
RAC_INLINE F32<L> fp16_by_integers(I32<L> word) {
  // exponent and fraction at their places in a float, whose exponent counts from 112 lower
  const I32<L> bits = word >> 3;
  const F32<L> magnitude = reinterpret_cast<F32<L>>(bits & 0x0fffe000) * 0x1p112f;
  const I32<L> not_finite = ((word & 0x7c000000) == 0x7c000000) & 0x7f800000;
  const I32<L> sign = word & static_cast<int32_t>(0x80000000u);
  return reinterpret_cast<F32<L>>(reinterpret_cast<I32<L>>(magnitude) | not_finite | sign);
}

// A value type says how many bytes a value has and what 32-bit words with it in their upper bytes
// are as float32: widen() times FACTOR, which is left to the end of a sum; load() reads a dense row.
struct Bf16 {
  static constexpr int BYTES = 2;
  static constexpr bool FP8 = false;
  static constexpr float FACTOR = 1.0f;
  template <typename Set>
  RAC_INLINE F32<Set::L> load(const uint16_t* from) {
    return BFloat16::load<Set::L>(from);
  }
  template <typename Set>
  RAC_INLINE F32<Set::L> widen(I32<Set::L> word) {
    return reinterpret_cast<F32<Set::L>>(word);
  }
};

struct Fp16 {
  static constexpr int BYTES = 2;
  static constexpr bool FP8 = false;
  static constexpr float FACTOR = 1.0f;
  template <typename Set>
  RAC_INLINE F32<Set::L> load(const uint16_t* from) {
    return Set::load_fp16(from);
  }
  template <typename Set>
  RAC_INLINE F32<Set::L> widen(I32<Set::L> word) {
    return Set::widen_fp16(word);
  }
};

struct Int8 {
  static constexpr int BYTES = 1;
  static constexpr bool FP8 = false;
  static constexpr float FACTOR = 0x1p-24f;
  template <typename Set>
  RAC_INLINE F32<Set::L> widen(I32<Set::L> word) {
    return __builtin_convertvector(word, F32<Set::L>);
  }
};

// e4m3 beside x that was rounded to e4m3: sign, exponent and fraction at their places in a float,
// whose exponent counts from 120 lower. Its products are multiples of 2^-138, so none is lost. It
// has no infinities, and a row with a NaN has a scale of NaN.
struct Fp8 {
  static constexpr int BYTES = 1;
  static constexpr bool FP8 = true;
  static constexpr float FACTOR = 0x1p120f;
  // Of words that have a value, its sign repeated, from bit 20 on.
  template <int L>
  RAC_INLINE F32<L> place(I32<L> word) {
    return reinterpret_cast<F32<L>>(word & static_cast<int32_t>(0x87f00000u));
  }
};

// The same beside any x.
struct Fp8Exact : Fp8 {
  static constexpr float FACTOR = 1.0f;
  template <int L>
  RAC_INLINE F32<L> place(I32<L> word) {
    return Fp8::place<L>(word) * 0x1p120f;
  }
};

// How a weight is packed, its values being V.
enum class Packing { DENSE, BITMAP, TWO_TO_FOUR };
template <typename V, Packing P>
struct Packed {
  using Values = V;
  static constexpr Packing PACKING = P;
};

// Within every quarter of 128 bits of two registers: a0 b0 a1 b1 or, PART being 1, a2 b2 a3 b3.
template <int L, int PART>
RAC_INLINE I32<L> interleave_words(I32<L> a, I32<L> b) {
  if constexpr (L == 8 && PART == 0) {
    return __builtin_shuffle(a, b, I32<8>{0, 8, 1, 9, 4, 12, 5, 13});
  } else if constexpr (L == 8) {
    return __builtin_shuffle(a, b, I32<8>{2, 10, 3, 11, 6, 14, 7, 15});
  } else if constexpr (PART == 0) {
    return __builtin_shuffle(
        a, b, I32<16>{0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29});
  } else {
    return __builtin_shuffle(
        a, b, I32<16>{2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31});
  }
}

// The same of pairs of words: a0 a1 b0 b1 or a2 a3 b2 b3.
template <int L, int PART>
RAC_INLINE I32<L> interleave_pairs(I32<L> a, I32<L> b) {
  if constexpr (L == 8 && PART == 0) {
    return __builtin_shuffle(a, b, I32<8>{0, 1, 8, 9, 4, 5, 12, 13});
  } else if constexpr (L == 8) {
    return __builtin_shuffle(a, b, I32<8>{2, 3, 10, 11, 6, 7, 14, 15});
  } else if constexpr (PART == 0) {
    return __builtin_shuffle(
        a, b, I32<16>{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29});
  } else {
    return __builtin_shuffle(
        a, b, I32<16>{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
  }
}

// The sum of a register's quarters.
template <int L>
RAC_INLINE f32x4 quarters(F32<L> sum) {
  f32x4 parts[L / 4];
  std::memcpy(parts, &sum, sizeof(parts));
  for (int width = L / 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) parts[i] += parts[i + width];
  }
  return parts[0];
}

// -1 where a lane is infinite or no number, else 0.
RAC_INLINE i32x4 not_finite(f32x4 x) {
  return (reinterpret_cast<i32x4>(x) & 0x7f800000) == 0x7f800000;
}

// Call `run(Float())` or another of elements.h for what x is.
template <typename Run>
RAC_INLINE void with_element(Element element, Run run) {
  if (element == Element::BF16) run(BFloat16());
  else if (element == Element::FP16) run(Float16());
  else run(Float());
}

// Call `run(Packed<...>())` for what the job holds.
template <typename Run>
RAC_INLINE void with_packing(const SparseLinear& job, Run run) {
  if (!job.codes) {
    if (job.value == Value::BFLOAT16) run(Packed<Bf16, Packing::DENSE>());
    else run(Packed<Fp16, Packing::DENSE>());
  } else if (job.offsets) {
    if (job.value == Value::BFLOAT16) run(Packed<Bf16, Packing::BITMAP>());
    else run(Packed<Fp16, Packing::BITMAP>());
  } else if (job.value == Value::BFLOAT16) {
    run(Packed<Bf16, Packing::TWO_TO_FOUR>());
  } else if (job.value == Value::FLOAT16) {
    run(Packed<Fp16, Packing::TWO_TO_FOUR>());
  } else if (job.value == Value::INT8) {
    run(Packed<Int8, Packing::TWO_TO_FOUR>());
  } else if (job.rounds_x) {
    run(Packed<Fp8, Packing::TWO_TO_FOUR>());
  } else {
    run(Packed<Fp8Exact, Packing::TWO_TO_FOUR>());
  }
}

// The end of a sum: y_tr, given the sum over all columns and what x of the token was divided by.
template <typename V>
RAC_INLINE float finished(const SparseLinear& job, int64_t row, float sum, float x_scale = 1.0f) {
  float y = V::FACTOR == 1.0f ? sum : sum * V::FACTOR;
  if (job.scale) y *= job.scale[row];
  y *= x_scale;
  if (job.bias) y += job.bias[row];
  return y;
}

// y[token : token + TB, row : row + RB] of sums in PARTS parts, of lanes that are columns.
template <typename V, int L, int PARTS, int RB, int TB>
RAC_INLINE void finish_rows(const SparseLinear& job, int64_t row, int64_t token,
                            F32<L> (&sum)[PARTS][RB][TB]) {
  float totals[TB][RB];  // an index that is not constant would put the sums into memory
#pragma GCC unroll 8
  for (int t = 0; t < TB; ++t) {
#pragma GCC unroll 4
    for (int r = 0; r < RB; ++r) {
#pragma GCC unroll 2
      for (int p = 1; p < PARTS; ++p) sum[0][r][t] += sum[p][r][t];
      const f32x4 four = quarters<L>(sum[0][r][t]);
      totals[t][r] = (four[0] + four[2]) + (four[1] + four[3]);
    }
  }
  for (int t = 0; t < TB && token + t < job.tokens; ++t) {
    for (int r = 0; r < RB && row + r < job.rows; ++r) {
      job.y[(token + t) * job.rows + row + r] = finished<V>(job, row + r, totals[t][r]);
    }
  }
}
