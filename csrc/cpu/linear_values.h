// Packed values and codes as float32 lanes. Included, like linear_few.h and linear_many.h, by
// linear_baseline.cpp, linear_avx2.cpp and linear_avx512.cpp, each of which defines an instruction
// set `Set` with
//   L                        lanes, 8 or 16: columns decoded at a time
//   spread<BYTES>(values, shuffle, ...)  words with the values of 8 columns, one code, in their
//                            upper bytes, BYTES being all that is read; for L = 16 of two codes
#pragma once

#include <cstdint>
#include <cstring>

#include "lanes.h"
#include "linear_sparse.h"
#include "linear_tables.h"

// A value type says how many bytes a value has and what 32-bit words with it in their upper bytes
// are as float32: widen() times FACTOR, which is left to the end of a sum.
struct Bf16 {
  static constexpr int BYTES = 2;
  static constexpr float FACTOR = 1.0f;
  template <int L>
  RAC_INLINE F32<L> widen(I32<L> word) {
    return reinterpret_cast<F32<L>>(word);
  }
};

struct Fp16 {
  static constexpr int BYTES = 2;
  static constexpr float FACTOR = 1.0f;
  template <int L>
  RAC_INLINE F32<L> widen(I32<L> word) {
    // exponent and fraction at their places in a float, whose exponent counts from 112 lower
    const I32<L> bits = word >> 3;
    const F32<L> magnitude = reinterpret_cast<F32<L>>(bits & 0x0fffe000) * 0x1p112f;
    const I32<L> not_finite = ((word & 0x7c000000) == 0x7c000000) & 0x7f800000;
    const I32<L> sign = word & static_cast<int32_t>(0x80000000u);
    return reinterpret_cast<F32<L>>(reinterpret_cast<I32<L>>(magnitude) | not_finite | sign);
  }
};

struct Int8 {
  static constexpr int BYTES = 1;
  static constexpr float FACTOR = 0x1p-24f;
  template <int L>
  RAC_INLINE F32<L> widen(I32<L> word) {
    return __builtin_convertvector(word, F32<L>);
  }
};

struct Fp8 {  // e4m3fn: no infinities, all ones is NaN
  static constexpr int BYTES = 1;
  static constexpr float FACTOR = 1.0f;
  template <int L>
  RAC_INLINE F32<L> widen(I32<L> word) {
    const I32<L> bits = word >> 4;
    const F32<L> magnitude = reinterpret_cast<F32<L>>(bits & 0x07f00000) * 0x1p120f;
    const I32<L> nan = ((word & 0x7f000000) == 0x7f000000) & 0x7fc00000;
    const I32<L> sign = word & static_cast<int32_t>(0x80000000u);
    return reinterpret_cast<F32<L>>(reinterpret_cast<I32<L>>(magnitude) | nan | sign);
  }
};

// A packing reads a row of W from column `first`, a multiple of 32, on: a code of eight columns after
// another, with a step over other rows' codes after every four.
template <typename V>
struct TwoToFour {
  using Values = V;
  static constexpr int READ = 4 * V::BYTES;  // bytes read for a code
  const uint8_t* values;
  const uint8_t* codes;

  RAC_INLINE TwoToFour begin(const SparseLinear& job, int64_t row) { return at(job, {}, row, 0); }
  RAC_INLINE TwoToFour at(const SparseLinear& job, const LinearScratch&, int64_t row,
                          int64_t first) {
    return {job.values + (row * job.columns + first) / 2 * V::BYTES,
            job.codes + row / 4 * job.columns / 2 + row % 4 * 4 + first / 2};
  }
  RAC_INLINE const Shuffles& shuffles() {
    return V::BYTES == 2 ? SHUFFLES_2TO4_16 : SHUFFLES_2TO4_8;
  }
  RAC_INLINE const Positions& positions() { return POSITIONS_2TO4; }
  RAC_INLINE int bytes_of(int) { return READ; }
  RAC_INLINE const uint8_t* after_four(const uint8_t* codes) { return codes + 12; }
  RAC_INLINE void leave(const SparseLinear&, const LinearScratch&, int64_t, const uint8_t*) {}
};

template <typename V>
struct Bitmap {
  using Values = V;
  static constexpr int READ = 16;
  const uint8_t* values;
  const uint8_t* codes;

  RAC_INLINE Bitmap begin(const SparseLinear& job, int64_t row) {
    return {job.values + 2 * job.offsets[row], job.codes + row * ((job.columns + 7) / 8)};
  }
  RAC_INLINE Bitmap at(const SparseLinear& job, const LinearScratch& scratch, int64_t row,
                       int64_t first) {
    return {job.values + 2 * scratch.position[row],
            job.codes + row * ((job.columns + 7) / 8) + first / 8};
  }
  RAC_INLINE const Shuffles& shuffles() { return SHUFFLES_BITMAP; }
  RAC_INLINE const Positions& positions() { return POSITIONS_BITMAP; }
  RAC_INLINE int bytes_of(int code) { return 2 * __builtin_popcount(code); }
  RAC_INLINE const uint8_t* after_four(const uint8_t* codes) { return codes; }
  // The row continues here in the next chunk of columns.
  RAC_INLINE void leave(const SparseLinear& job, const LinearScratch& scratch, int64_t row,
                        const uint8_t* values) {
    scratch.position[row] = (values - job.values) / 2;
  }
};

// The next Set::L columns of a row as float32, given their codes, the first lowest.
template <typename Set, typename Packing>
RAC_INLINE F32<Set::L> decode(Packing& reader, uint32_t codes) {
  using V = typename Packing::Values;
  const Shuffles& table = Packing::shuffles();
  const int code = codes & 255;
  const uint8_t* values = reader.values;
  reader.values += Packing::bytes_of(code);
  if constexpr (Set::L == 8) {
    return V::template widen<8>(
        Set::template spread<Packing::READ>(values, table.bytes[code]));
  } else {
    const int next = codes >> 8 & 255;
    const uint8_t* after = reader.values;
    reader.values += Packing::bytes_of(next);
    return V::template widen<16>(Set::template spread<Packing::READ>(
        values, table.bytes[code], after, table.bytes[next]));
  }
}

// Call `run<Packing>` for what the job holds.
template <typename Run>
RAC_INLINE void with_packing(const SparseLinear& job, Run run) {
  if (job.offsets) {
    if (job.value == Value::BF16) run(static_cast<Bitmap<Bf16>*>(nullptr));
    else run(static_cast<Bitmap<Fp16>*>(nullptr));
  } else if (job.value == Value::BF16) {
    run(static_cast<TwoToFour<Bf16>*>(nullptr));
  } else if (job.value == Value::FP16) {
    run(static_cast<TwoToFour<Fp16>*>(nullptr));
  } else if (job.value == Value::INT8) {
    run(static_cast<TwoToFour<Int8>*>(nullptr));
  } else {
    run(static_cast<TwoToFour<Fp8>*>(nullptr));
  }
}

// The end of a sum: y_tr, given the sum over all columns.
template <typename V>
RAC_INLINE float finished(const SparseLinear& job, int64_t row, float sum) {
  float y = V::FACTOR == 1.0f ? sum : sum * V::FACTOR;
  if (job.scale) y *= job.scale[row];
  if (job.bias) y += job.bias[row];
  return y;
}
