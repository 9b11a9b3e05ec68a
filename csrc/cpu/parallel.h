// Splits [0, count) over threads, but only where the work repays waking them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace specdec {

// Waking a thread costs microseconds, and starting one tens of them; reading this many logits takes about as long.
constexpr int64_t kLogitsPerThread = 1 << 18;

// GOMP_parallel(f, data, threads, flags) of the OpenMP runtime that PyTorch runs on, or null. Threads of our own would
// compete for the cores with PyTorch's, which go on spinning for a while after each of its operations.
typedef void (*OpenMPParallel)(void (*)(void*), void*, unsigned, unsigned);
extern std::atomic<OpenMPParallel> openmp_parallel;

// Runs f() on up to `wanted` threads at once, this one among them.
template <typename F>
void run_together(int64_t wanted, F f) {
  const OpenMPParallel parallel = openmp_parallel.load(std::memory_order_relaxed);
  if (wanted > 1 && parallel != nullptr) {
    parallel([](void* data) { (*static_cast<F*>(data))(); }, &f, static_cast<unsigned>(wanted), 0);
    return;
  }
  std::vector<std::thread> threads;
  for (int64_t t = 1; t < wanted; ++t) threads.emplace_back(f);
  f();
  for (std::thread& thread : threads) thread.join();
}

// f() makes one worker (its scratch memory), called as worker(i); each i goes to one worker, in any order.
template <typename F>
void parallel_for(int64_t count, int64_t total_logits, int max_threads, F f) {
  const int64_t wanted = std::min<int64_t>({count, total_logits / kLogitsPerThread, static_cast<int64_t>(max_threads)});
  std::atomic<int64_t> next{0};
  run_together(wanted, [&] {
    auto scratch = f();
    for (int64_t i = next++; i < count; i = next++) scratch(i);
  });
}

}  // namespace specdec
