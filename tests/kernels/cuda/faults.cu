// Kernels with one fault each, which the emulation must find.
#include "cuda/device.cuh"

namespace specdec::cuda {
namespace {

enum Fault { kNone, kThreadLeaves, kOtherBarrier, kOtherOperation, kRankOutside, kMisaligned, kBeyondTheEnd };

constexpr int kSharedBytes = 64;

SPECDEC_KERNEL(kThreads, 1) faulty(int fault, char* out) {
  char* shared = shared_memory();
  const bool first = thread_index() == 0;
  if (fault == kRankOutside) *out = *of_rank(shared, 2);
  if (fault == kMisaligned) load_128(out + 1);
  if (fault == kOtherOperation && first) ballot(true);
  const int sum = warp_sum(lane_index());
  if (fault == kThreadLeaves && first) return;
  if (fault == kOtherBarrier && first) team_sync();
  if (fault == kBeyondTheEnd && first) shared[kSharedBytes] = static_cast<char>(sum);
  block_sync();
  if (first && team_rank() == 0) *out = static_cast<char>(sum % 100);
}

// Without the barrier, or with it, between a write to the shared memory of another block and its reads.
SPECDEC_KERNEL(kThreads, 1) race(bool with_barrier, char* out) {
  if (team_rank() == 1 && thread_index() == 3) shared_memory()[0] = 1;
  if (with_barrier) {
    team_sync();
  } else {
    block_sync();
  }
  if (team_rank() == 0) out[thread_index()] = *of_rank(shared_memory(), 1);
  team_sync();
}

}  // namespace
}  // namespace specdec::cuda

extern "C" const char* run_fault(int fault, char* out) {
  using namespace specdec::cuda;
  return launch_blocks(faulty, 4, 2, kSharedBytes, nullptr, fault, out);
}

extern "C" const char* run_race(int with_barrier, char* out) {
  using namespace specdec::cuda;
  return launch_blocks(race, 2, 2, kSharedBytes, nullptr, with_barrier != 0, out);
}
