// Large arrays in 2 MB pages, where the system has such: far fewer page faults, fewer TLB misses; and
// what else is asked of the system about pages.
#pragma once

#include <cstdint>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

constexpr int64_t HUGE_PAGE = 2 << 20;

// Ask for it where whole pages lie in the `bytes` at `memory`. May be refused; nothing depends on it.
inline void advise_huge_pages(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) / HUGE_PAGE * HUGE_PAGE;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// The same for memory that has been written, at once: its whole pages are copied together, which
// pays for what is read again and again. Files' pages stay as they are.
inline void collapse_huge_pages(const void* memory, int64_t bytes) {
#if defined(__linux__)
  constexpr int COLLAPSE = 25;  // MADV_COLLAPSE, of Linux 6.1; older ones refuse it
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) / HUGE_PAGE * HUGE_PAGE;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, COLLAPSE);
#endif
}

// Give whole pages of memory back at once, whose contents are lost: free would keep them for what
// is allocated next, beside what is needed then. Returns the bytes of `memory` from where to where
// there are now zeros, in pages that take memory when they are written.
inline std::pair<int64_t, int64_t> release_huge_pages(void* memory, int64_t bytes) {
#if defined(__linux__)
  const auto first = reinterpret_cast<uintptr_t>(memory);
  const auto begin = (first + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  const auto end = (first + bytes) / HUGE_PAGE * HUGE_PAGE;
  if (end > begin && madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED) == 0) {
    return {begin - first, end - first};
  }
#endif
  return {0, 0};
}

// Have the pages of memory that is about to be written made in one call: a fault for each takes more
// than twice the time. Those that there are stay as they are.
inline void populate_pages(void* memory, int64_t bytes) {
#if defined(__linux__)
  constexpr int POPULATE_WRITE = 23;  // MADV_POPULATE_WRITE, of Linux 5.14; older ones refuse it
  const uintptr_t page = getpagesize(), first = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = first / page * page, end = (first + bytes + page - 1) / page * page;
  if (bytes > 0) madvise(reinterpret_cast<void*>(begin), end - begin, POPULATE_WRITE);
#endif
}
