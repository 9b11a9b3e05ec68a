// Splits [0, count) over threads, but only where the work repays starting them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace specdec {

// Starting and joining a thread costs tens of microseconds, reading this many logits about ten times that. Threads
// live for one call: nothing is left behind that a fork of the engine could break.
constexpr int64_t kLogitsPerThread = 1 << 19;

// f() makes one worker (its scratch memory), called as worker(i); each i goes to one worker, in any order.
template <typename F>
void parallel_for(int64_t count, int64_t total_logits, int max_threads, F f) {
  const int64_t wanted = std::min<int64_t>({count, total_logits / kLogitsPerThread, static_cast<int64_t>(max_threads)});
  std::atomic<int64_t> next{0};
  auto work = [&] {
    auto scratch = f();
    for (int64_t i = next++; i < count; i = next++) scratch(i);
  };
  std::vector<std::thread> threads;
  for (int64_t t = 1; t < wanted; ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace specdec
