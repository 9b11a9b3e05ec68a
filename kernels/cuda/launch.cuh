// How many blocks work on a row, what they keep in shared memory, and the launch itself.
#pragma once

#include "cuda/kernels.h"
#include "cuda/row.cuh"

namespace specdec::cuda {

constexpr int kLargestTeam = 8;              // blocks in a cluster that every GPU with clusters can run
constexpr int64_t kComfortable = 100 << 10;  // shared memory of a block, so that two of them fit on a multiprocessor

struct Limits {  // for tests and measurements; 0: as the plan and the device have it
  int team = 0;  // exactly so many blocks, where there are clusters
  int64_t shared_bytes = 0;
};
extern Limits limits;

// Rows are kept in shared memory where a team can hold one; teams grow beyond that while there are idle
// multiprocessors.
struct Plan {
  int team = 1;
  int tiles = 0;  // of a block at most
  bool cached = false;
  int64_t bytes = 0;

  Plan(int64_t rows, int64_t vocab, int64_t element_bytes, bool may_cache = true) : vocab_(vocab) {
    const Device device = current_device();
    const int most_team = device.clusters ? kLargestTeam : 1;
    const int64_t room = limits.shared_bytes > 0 ? limits.shared_bytes : device.shared_bytes;
    const int64_t comfortable = room < kComfortable ? room : kComfortable;
    const int64_t cache = may_cache ? element_bytes : 0;
    if (device.clusters && limits.team > 0) team = limits.team;
    while (limits.team == 0 && team < most_team &&
           (bytes_of(cache) > comfortable || 2 * team * rows <= device.multiprocessors)) {
      team *= 2;
    }
    cached = may_cache && bytes_of(cache) <= room;
    bytes = bytes_of(cached ? cache : 0);
    tiles = static_cast<int>(tiles_of());
  }

 private:
  int64_t tiles_of() const {
    const int64_t tiles = (vocab_ + kOctet - 1 + kTile - 1) / kTile;
    return (tiles + team - 1) / team;
  }
  int64_t bytes_of(int64_t cache) const {  // as Workspace lays it out
    const auto padded = [](int64_t bytes) { return (bytes + 15) / 16 * 16; };
    const int64_t count = tiles_of();
    return padded(sizeof(Control)) + padded(count * sizeof(double)) + padded(kListCapacity * sizeof(uint32_t)) +
           padded(count * sizeof(float)) + count * kTile * cache;
  }

  int64_t vocab_;
};

template <typename F>
const char* with_type(int64_t dtype, F f) {
  switch (dtype) {
    case kBFloat16:
      return f(BFloat16());
    case kFloat16:
      return f(Float16());
    default:
      return f(Float32());
  }
}

// One team per row.
template <typename... Parameters, typename... Arguments>
const char* launch(void (*kernel)(Parameters...), int64_t rows, const Plan& plan, Stream stream,
                   const Arguments&... arguments) {
  if (rows == 0) return nullptr;
  return launch_blocks(kernel, rows * plan.team, plan.team, plan.bytes, stream, arguments...);
}

}  // namespace specdec::cuda
