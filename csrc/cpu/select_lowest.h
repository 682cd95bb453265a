// The exact count-th smallest of a list of scores, without sorting it.
#pragma once

#include <cstdint>

// Entry i is chosen when keys[i] < key, or keys[i] == key and i <= last_tie.
struct Selection {
  int32_t key;
  int64_t last_tie;
};

// Choose the `count` lowest of `size` non-negative keys, ties by lowest index; with `all_ties`,
// every key equal to the count-th as well. Non-negative floats order as their bits do.
Selection select_lowest(const int32_t* keys, int64_t size, int64_t count, bool all_ties,
                        int threads);
