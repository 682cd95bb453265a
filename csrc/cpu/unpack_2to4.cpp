// The way back from 2:4 packing: one read, one write.
//
// A thread takes as many rows as make whole tiles of metadata (nibbles.h), brings their positions
// into the order of the rows and then expands sixteen groups at a time.

#include <algorithm>
#include <type_traits>

#include "first.h"
#include "lanes.h"
#include "nibbles.h"
#include "packing.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

// `unpack<SIZE>` writes the 64 weights of which `from` has 32 values, at `positions`.
struct BaselineBlock {
  template <int SIZE>
  RAC_INLINE void unpack(const uint8_t* from, uint64_t positions, uint8_t* to) {
    using Bits = std::conditional_t<SIZE == 2, uint16_t, uint8_t>;
    Bits values[BLOCK / 2], weights[BLOCK] = {};
    std::memcpy(values, from, sizeof(values));
    for (int i = 0; i < BLOCK / 2; ++i) weights[i / 2 * 4 + (positions >> 2 * i & 3)] = values[i];
    std::memcpy(to, weights, sizeof(weights));
  }
};

#if defined(__x86_64__)

struct Avx2Block {
  static constexpr Controls<16> CONTROLS_16 = unpack_controls<2>();
  static constexpr Controls<8> CONTROLS_8 = unpack_controls<1>();

  // Sixteen bytes at a time: two groups of 16-bit values, four of bytes.
  template <int SIZE>
  RAC_AVX2 static inline void unpack(const uint8_t* from, uint64_t positions, uint8_t* to) {
    const auto load = [](const uint8_t* at) { return reinterpret_cast<const __m128i*>(at); };
    for (int i = 0; i < 4 * SIZE; ++i) {
      __m128i control;
      if constexpr (SIZE == 2) {
        control = _mm_loadu_si128(load(CONTROLS_16[positions >> 8 * i & 255].data()));
      } else {
        uint64_t low, high;
        std::memcpy(&low, CONTROLS_8[positions >> 16 * i & 255].data(), 8);
        std::memcpy(&high, CONTROLS_8[positions >> (16 * i + 8) & 255].data(), 8);
        high += 0x0404040404040404u;
        control = _mm_set_epi64x(static_cast<int64_t>(high), static_cast<int64_t>(low));
      }
      const __m128i values = _mm_loadl_epi64(load(from + 8 * i));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16 * i), _mm_shuffle_epi8(values, control));
    }
  }
};

// The value of a group that is written is its first but where `second` has a bit.
struct Avx512Block {
  template <int SIZE>
  RAC_AVX512 static inline void unpack(const uint8_t* from, uint64_t positions, uint8_t* to) {
    const uint64_t second = bit_at(positions >> 2), both = bit_at(positions) | second;
    if constexpr (SIZE == 2) {
      const __m512i values = _mm512_loadu_si512(from), one = _mm512_set1_epi16(1);
      const __m512i group = _mm512_load_si512(FIRST_OF_GROUP);
      for (int i = 0; i < 2; ++i) {
        const __m512i start = _mm512_add_epi16(group, _mm512_set1_epi16(16 * i));
        const auto is_second = static_cast<__mmask32>(second >> 32 * i);
        const auto kept = static_cast<__mmask32>(both >> 32 * i);
        const __m512i index = _mm512_mask_add_epi16(start, is_second, start, one);
        const __m512i weights = _mm512_maskz_permutexvar_epi16(kept, index, values);
        _mm512_storeu_si512(to + 64 * i, weights);
      }
    } else {
      const auto* at = reinterpret_cast<const __m256i*>(from);
      const __m512i lanes = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
      const __m512i values =
          _mm512_permutexvar_epi64(lanes, _mm512_castsi256_si512(_mm256_loadu_si256(at)));
      const __m512i group = _mm512_broadcast_i32x4(
          _mm_set_epi64x(0x0606060604040404, 0x0202020200000000));
      const __m512i index = _mm512_mask_add_epi8(group, second, group, _mm512_set1_epi8(1));
      _mm512_storeu_si512(to, _mm512_maskz_shuffle_epi8(both, values, index));
    }
  }

 private:
  // The first value of the group of each of 32 weights.
  alignas(64) static constexpr uint16_t FIRST_OF_GROUP[32] = {
      0, 0, 0, 0, 2,  2,  2,  2,  4,  4,  4,  4,  6,  6,  6,  6,
      8, 8, 8, 8, 10, 10, 10, 10, 12, 12, 12, 12, 14, 14, 14, 14};
};

#endif

// Whether all positions of a row are ascending.
RAC_INLINE bool intact(const uint8_t* words, int64_t columns) {
  uint64_t bad = 0;
  for (int64_t column = 0; column < columns; column += BLOCK) {
    uint64_t positions = ~uint64_t{0} / 15 * 14;  // 2 and 3, beyond the last column
    std::memcpy(&positions, words + column / 8, std::min(BLOCK, columns - column) / 8);
    bad |= not_ascending(positions);
  }
  return bad == 0;
}

template <typename Isa, int SIZE>
RAC_INLINE void unpack_row(const uint8_t* from, const uint8_t* words, int64_t columns, uint8_t* to) {
  uint64_t positions = 0;
  int64_t column = 0;
  for (; column + BLOCK <= columns; column += BLOCK) {
    std::memcpy(&positions, words + column / 8, 8);
    Isa::template unpack<SIZE>(from + column * SIZE / 2, positions, to + column * SIZE);
  }
  if (column == columns) return;
  const int64_t rest = columns - column;
  uint8_t values[BLOCK * SIZE / 2] = {}, weights[BLOCK * SIZE];
  std::memcpy(values, from + column * SIZE / 2, rest * SIZE / 2);
  std::memcpy(&positions, words + column / 8, rest / 8);
  Isa::template unpack<SIZE>(values, positions, weights);
  std::memcpy(to + column * SIZE, weights, rest * SIZE);
}

// All rows, split among the threads of the enclosing parallel region.
template <typename Isa, int SIZE>
RAC_INLINE void unpack_rows(const UnpackJob& job, First& first) {
  constexpr int64_t ROWS = Tile<SIZE>::ROWS;
  const int64_t stride = (job.columns + BLOCK - 1) / BLOCK * 8;
  AlignedArray<uint8_t> words(ROWS * stride);
#pragma omp for schedule(static)
  for (int64_t row = 0; row < job.padded; row += ROWS) {
    load_metadata<SIZE>(job.metadata, row, job.columns, job.padded, words.get(), stride);
    for (int64_t i = 0; i < ROWS && !first.before(row + i); ++i) {
      if (!intact(&words[i * stride], job.columns)) {
        first.lower(row + i);
      } else if (row + i < job.rows) {
        unpack_row<Isa, SIZE>(job.values + (row + i) * job.columns * SIZE / 2, &words[i * stride],
                              job.columns, job.weight + (row + i) * job.columns * SIZE);
      }
    }
  }
}

template <typename Isa>
RAC_INLINE void unpack_any(const UnpackJob& job, First& first) {
  if (bytes_of(job.value) == 2) unpack_rows<Isa, 2>(job, first);
  else unpack_rows<Isa, 1>(job, first);
}

void unpack_baseline(const UnpackJob& job, First& first) { unpack_any<BaselineBlock>(job, first); }
#if defined(__x86_64__)
RAC_AVX2 void unpack_avx2(const UnpackJob& job, First& first) { unpack_any<Avx2Block>(job, first); }
RAC_AVX512 void unpack_avx512(const UnpackJob& job, First& first) {
  unpack_any<Avx512Block>(job, first);
}
#else
constexpr auto unpack_avx2 = unpack_baseline, unpack_avx512 = unpack_baseline;
#endif

}  // namespace

int64_t unpack_2to4(const UnpackJob& job) {
  First first;
  const auto run = pick(unpack_baseline, unpack_avx2, unpack_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job, first);
  return first.get();
}
