// The lowest of what the threads of a parallel region find, and none.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

class First {
 public:
  void lower(int64_t found) {
    int64_t known = lowest_.load(std::memory_order_relaxed);
    while (found < known && !lowest_.compare_exchange_weak(known, found)) {
    }
  }
  bool before(int64_t index) const { return lowest_.load(std::memory_order_relaxed) < index; }
  // The lowest, -1 where there is none.
  int64_t get() const {
    const int64_t found = lowest_.load();
    return found == NONE ? -1 : found;
  }

 private:
  static constexpr int64_t NONE = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> lowest_{NONE};
};
