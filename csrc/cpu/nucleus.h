// Finding the nucleus among candidates, and drawing from it: the part of nucleus_sample.cpp that
// does not depend on the instruction set.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

// Not set to 0, so that what is not used is not touched.
template <typename T>
std::unique_ptr<T[]> array(int64_t size) {
  return std::unique_ptr<T[]>(new T[size]);
}

// Candidates for the nucleus, in the order of their ids.
struct Candidates {
  explicit Candidates(int64_t vocabulary)
      : distance(array<float>(vocabulary + PADDING)),
        weight(array<float>(vocabulary + PADDING)),
        id(array<int32_t>(vocabulary + PADDING)) {}
  static constexpr int64_t PADDING = 64;  // so that vectors may end behind the last one
  // Distances are not negative: they order as their bits do.
  int32_t key(int64_t i) const {
    int32_t bits;
    std::memcpy(&bits, &distance[i], sizeof(bits));
    return bits;
  }
  std::unique_ptr<float[]> distance;  // maximum - logit
  std::unique_ptr<float[]> weight;    // exp(-distance / temperature)
  std::unique_ptr<int32_t[]> id;
  int64_t size = 0;
  double mass = 0;
};

// The least likely id that belongs, all more likely ones do too.
struct Last {
  int32_t key;
  int32_t id;
};

// The last of the nucleus: with it, the most likely candidates weigh `target` or more, else all of
// them. `left` has room for as many.
Last last_of_nucleus(const Candidates& found, double target, int32_t* left);

// The first id up to which the nucleus weighs more than a share of `uniform` of it.
int64_t draw_candidate(const Candidates& found, Last last, float uniform);
