// Sixteen groups of a row, packed: what differs between instruction sets, and its baseline.
//
// `pack<V, S>` takes 64 weights at `from`, writes the 32 values that are kept and their positions,
// and returns the mask of what is refused, 0 if nothing is. -0.0 is zero: its bits are cleared.
// A score is the bits of a float >= 0, or of a 16-bit magnitude: such bits order as the numbers do.
// A weight goes if less than two of its three neighbours go before it; the one with the lower index
// goes before it with an equal score too.
#pragma once

#include <type_traits>

#include "nibbles.h"
#include "packing.h"

struct BaselineBlock {
  // |value| as float32. float16: its bits are those of the value times 2^-112.
  template <Value V>
  RAC_INLINE float magnitude(uint16_t bits) {
    const int shift = V == Value::BFLOAT16 ? 16 : 13;
    const uint32_t word = static_cast<uint32_t>(bits & 0x7fff) << shift;
    float value;
    std::memcpy(&value, &word, 4);
    if (V == Value::BFLOAT16) return value;
    value *= 0x1p112f;
    const uint32_t special = (bits & 0x7fff) < 0x7c00 ? 0 : FLOAT_INFINITY;
    uint32_t scaled;
    std::memcpy(&scaled, &value, 4);
    scaled |= special;
    std::memcpy(&value, &scaled, 4);
    return value;
  }

  // The mask of the group's two highest scores; the upper nibble is that of NaN.
  template <Value V, Score S>
  RAC_INLINE uint32_t highest(const uint16_t* group, const float* scale) {
    int32_t scores[4];
    uint32_t keep = 0;
    const int32_t infinity = S == Score::SCALED ? FLOAT_INFINITY : infinity_of(V);
    for (int i = 0; i < 4; ++i) {
      scores[i] = group[i] & 0x7fff;
      if (S != Score::SCALED) continue;
      const float score = magnitude<V>(group[i]) * scale[i];
      std::memcpy(&scores[i], &score, 4);
      scores[i] &= 0x7fffffff;
    }
    for (int i = 0; i < 4; ++i) {
      int before = 0;
      for (int j = 0; j < 4; ++j) {
        before += j < i ? scores[j] <= scores[i] : scores[j] < scores[i];
      }
      keep |= static_cast<uint32_t>(before >= 2) << i;
      keep |= static_cast<uint32_t>(scores[i] > infinity) << (4 + i);
    }
    return keep;
  }

  template <Value V, Score S>
  RAC_INLINE uint64_t pack(const uint8_t* from, const float* scale, uint8_t* to,
                           uint64_t* positions) {
    using Bits = std::conditional_t<bytes_of(V) == 2, uint16_t, uint8_t>;
    const Bits sign = V == Value::INT8 ? 0 : 1 << (8 * sizeof(Bits) - 1);
    Bits bits[BLOCK];
    std::memcpy(bits, from, sizeof(bits));
    uint64_t mask = 0, nan = 0;
    for (int g = 0; g < BLOCK / 4; ++g) {
      uint32_t keep = 15;
      if constexpr (S != Score::NONE) keep = highest<V, S>(bits + 4 * g, scale + 4 * g);
      nan |= static_cast<uint64_t>(keep >> 4) << 4 * g;
      for (int i = 0; i < 4; ++i) {
        Bits& value = bits[4 * g + i];
        if (!(keep >> i & 1) || (value & static_cast<Bits>(~sign)) == 0) value = 0;
        mask |= static_cast<uint64_t>(value != 0) << (4 * g + i);
      }
    }
    *positions = positions_of(mask);
    Bits kept[BLOCK / 2];
    for (int i = 0; i < BLOCK / 2; ++i) kept[i] = bits[i / 2 * 4 + (*positions >> 2 * i & 3)];
    std::memcpy(to, kept, sizeof(kept));
    return S == Score::NONE ? more_than_two(mask) : nan;
  }
};
