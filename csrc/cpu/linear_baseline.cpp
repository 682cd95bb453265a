// linear_few and linear_many for any CPU.

#include <type_traits>

#include "linear_few.h"
#include "linear_many.h"

namespace {

struct Baseline {
  static constexpr int L = 8;

  template <int BYTES>
  RAC_INLINE I32<8> spread(const uint8_t* values, const uint8_t* shuffle) {
    uint8_t read[BYTES], words[32];
    std::memcpy(read, values, BYTES);
    for (int i = 0; i < 32; ++i) words[i] = shuffle[i] & 0x80 ? 0 : read[shuffle[i]];
    I32<8> result;
    std::memcpy(&result, words, sizeof(result));
    return result;
  }
};

}  // namespace

void few_baseline(const SparseLinear& job, const LinearScratch& scratch) {
  few<Baseline>(job, scratch);
}

void many_baseline(const SparseLinear& job, const LinearScratch& scratch) {
  many<Baseline>(job, scratch);
}
