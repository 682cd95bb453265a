// linear_sparse for any CPU.

#include <type_traits>

#include "linear_rows.h"

namespace {

struct Baseline {
  static constexpr int L = 8;

  RAC_INLINE I32<8> spread(const uint8_t* values, const uint8_t* shuffle) {
    uint8_t read[16], words[32];
    std::memcpy(read, values, 16);
    for (int i = 0; i < 32; ++i) words[i] = shuffle[i] & 0x80 ? 0 : read[shuffle[i]];
    I32<8> result;
    std::memcpy(&result, words, sizeof(result));
    return result;
  }

  template <int GROUPS, bool HALF>
  RAC_INLINE I32<8> codes(const uint8_t* from) {
    I32<8> words;
    std::memcpy(&words, from, 16);
    std::memcpy(reinterpret_cast<uint8_t*>(&words) + 16, GROUPS == 2 ? from + 16 : from, 16);
    return GROUPS == 2 ? words : words >> I32<8>{0, 0, 0, 0, 16, 16, 16, 16};
  }

  template <int TB>
  RAC_INLINE I32<8> places(I32<8> codes, int i) { return codes >> (2 * i); }

  RAC_INLINE I32<8> lower_halves(I32<8> words) { return words << 16 >> 4; }

  RAC_INLINE F32<8> pick(F32<8> x, I32<8> codes) {
    float from[8], picked[8];
    std::memcpy(from, &x, sizeof(from));
    for (int i = 0; i < 8; ++i) picked[i] = from[i / 4 * 4 + (codes[i] & 3)];
    std::memcpy(&x, picked, sizeof(x));
    return x;
  }

  RAC_INLINE void keep(F32<8>&) {}

  RAC_INLINE F32<8> load_fp16(const uint16_t* from) { return Float16::load<8>(from); }
  RAC_INLINE F32<8> widen_fp16(I32<8> words) { return fp16_by_integers<8>(words); }
};

}  // namespace

void arrange_baseline(const SparseLinear& job, const LinearScratch& scratch, int64_t group) {
  arrange_group<Baseline>(job, scratch, group);
}

void linear_baseline(const SparseLinear& job, const LinearScratch& scratch) {
  linear<Baseline>(job, scratch);
}
