// What several bindings_*.cpp make of the addresses and strides that Python hands over.
#pragma once

#include <array>
#include <cstdint>

#include "capture.h"
#include "decode_attention.h"

inline Ring ring_at(uintptr_t rows, uintptr_t state, int64_t slots, uintptr_t active) {
  return {reinterpret_cast<uint8_t*>(rows), reinterpret_cast<int32_t*>(state), slots,
          reinterpret_cast<const uint8_t*>(active)};
}

inline CacheView cache_at(uintptr_t data, const std::array<int64_t, 3>& strides) {
  return {reinterpret_cast<void*>(data), strides[0], strides[1], strides[2]};
}
