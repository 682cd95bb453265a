#include "nucleus.h"

#include <initializer_list>

// Selection by mass: 11, 10 and 10 bits of the key.
Last last_of_nucleus(const Candidates& found, double target, int32_t* left) {
  int64_t size = found.size;
  for (int64_t i = 0; i < size; ++i) left[i] = static_cast<int32_t>(i);
  double passed = 0;  // mass of what is more likely than all that is left
  for (const int shift : {20, 10, 0}) {
    const int bins = shift == 20 ? 2048 : 1024;
    const auto bin_of = [&](int32_t i) { return (found.key(i) >> shift) & (bins - 1); };
    double mass[2048] = {};
    for (int64_t i = 0; i < size; ++i) mass[bin_of(left[i])] += found.weight[left[i]];
    int end = bins - 1;  // rounding must not lead past the last bin that has something
    while (mass[end] <= 0) --end;
    int bin = 0;
    for (; bin < end && passed + mass[bin] < target; ++bin) passed += mass[bin];
    int64_t kept = 0;
    for (int64_t i = 0; i < size; ++i) {
      const int32_t one = left[i];
      left[kept] = one;
      kept += bin_of(one) == bin;
    }
    size = kept;
  }
  int64_t i = 0;  // equally likely ids are left: the lowest ones belong
  for (; i + 1 < size && (passed += found.weight[left[i]]) < target; ++i) continue;
  return {found.key(left[i]), found.id[left[i]]};
}

int64_t draw_candidate(const Candidates& found, Last last, float uniform) {
  const auto belongs = [&](int64_t i) {
    const int32_t key = found.key(i);
    return found.weight[i] > 0 && (key < last.key || (key == last.key && found.id[i] <= last.id));
  };
  double mass = 0, passed = 0;
  for (int64_t i = 0; i < found.size; ++i) mass += belongs(i) ? found.weight[i] : 0;
  const double target = uniform * mass;
  int64_t id = -1;
  for (int64_t i = 0; i < found.size && !(passed > target); ++i) {
    if (!belongs(i)) continue;
    id = found.id[i];
    passed += found.weight[i];
  }
  return id;
}
