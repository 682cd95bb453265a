// A register as an array of its lanes, and what instructions have in common.
#pragma once

#include <cstdint>
#include <cstring>

namespace emulated {

#define EMULATED __attribute__((noinline, unused)) static

template <typename T, int BITS = 512>
struct Register {
  static constexpr int LANES = BITS / 8 / sizeof(T);
  T lane[LANES];
  template <typename V>
  EMULATED Register of(const V& vector) {
    static_assert(sizeof(V) == BITS / 8, "a register of another width");
    Register read;
    std::memcpy(&read, &vector, sizeof(read));
    return read;
  }
};

template <typename V, typename R>
EMULATED V as(const R& result) {
  static_assert(sizeof(V) == sizeof(R), "a register of another width");
  V vector;
  std::memcpy(&vector, &result, sizeof(vector));
  return vector;
}

// A register whose lane i is f(i).
template <typename T, typename F>
EMULATED __m512i fill(F f) {
  Register<T> result;
  for (int i = 0; i < result.LANES; ++i) result.lane[i] = static_cast<T>(f(i));
  return as<__m512i>(result);
}

// Lane by lane of one or of two registers.
template <typename T, typename F>
EMULATED __m512i map(const __m512i& a, F f) {
  const auto x = Register<T>::of(a);
  return fill<T>([&](int i) { return f(x.lane[i]); });
}
template <typename T, typename F>
EMULATED __m512i map(const __m512i& a, const __m512i& b, F f) {
  const auto x = Register<T>::of(a), y = Register<T>::of(b);
  return fill<T>([&](int i) { return f(x.lane[i], y.lane[i]); });
}

// The lanes of `a` under a mask; those of `other` where its bit is 0.
template <typename T>
EMULATED __m512i blend(uint64_t mask, const __m512i& a, const __m512i& other) {
  const auto x = Register<T>::of(a), y = Register<T>::of(other);
  return fill<T>([&](int i) { return mask >> i & 1 ? x.lane[i] : y.lane[i]; });
}
template <typename T>
EMULATED __m512i zeroed(uint64_t mask, const __m512i& a) {
  return blend<T>(mask, a, __m512i{});
}

// The lanes of memory under a mask; no others are read.
template <typename T, int BITS, typename V>
EMULATED V masked_load(uint64_t mask, const void* from) {
  Register<T, BITS> result = {};
  for (int i = 0; i < result.LANES; ++i) {
    if (mask >> i & 1) std::memcpy(&result.lane[i], static_cast<const T*>(from) + i, sizeof(T));
  }
  return as<V>(result);
}

// A bit for each pair of lanes of which it is true.
template <typename T, typename F>
EMULATED uint64_t mask_of(const __m512i& a, const __m512i& b, F f) {
  const auto x = Register<T>::of(a), y = Register<T>::of(b);
  uint64_t mask = 0;
  for (int i = 0; i < x.LANES; ++i) mask |= static_cast<uint64_t>(f(x.lane[i], y.lane[i])) << i;
  return mask;
}

}  // namespace emulated
