// The threads of one parallel region, for kernels of many short phases: a region for each would
// have them put to sleep and woken every time, which takes as long as a short phase does.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include <omp.h>

// Where threads wait for each other: spinning as long as waking one takes, then asleep, so that
// a machine with other things to do loses little.
class Barrier {
 public:
  void wait(int threads) {
    const uint32_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        phase_.store(phase + 1, std::memory_order_release);
      }
      changed_.notify_all();
      return;
    }
    for (int turn = 0; turn < SPINS; ++turn) {
      if (phase_.load(std::memory_order_acquire) != phase) return;
      pause();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return phase_.load(std::memory_order_relaxed) != phase; });
  }

 private:
  static constexpr int SPINS = 5000;  // of some 20 to 40 ns: about what waking a thread takes

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
  }

  std::atomic<int> arrived_{0};
  std::atomic<uint32_t> phase_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// What a kernel knows of the threads that call it: all of them do, each with its own `thread`.
struct Team {
  int thread, threads;
  Barrier* barrier;

  void wait() const {
    if (threads > 1) barrier->wait(threads);
  }
  // This thread's share of `count` things is begin(count) .. end(count): the same in every phase,
  // so that it need not wait for the others before it goes on with what it made.
  int64_t begin(int64_t count) const { return count * thread / threads; }
  int64_t end(int64_t count) const { return count * (thread + 1) / threads; }
};

// Call body(team) on up to `threads` threads.
template <typename Body>
void run_team(int threads, const Body& body) {
  Barrier barrier;
#pragma omp parallel num_threads(threads)
  body(Team{omp_get_thread_num(), omp_get_num_threads(), &barrier});
}
