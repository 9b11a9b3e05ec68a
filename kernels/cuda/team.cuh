// What a team's threads tell one another. Every function here is called by all threads of the team together.
#pragma once

#include "cuda/device.cuh"

namespace specdec::cuda {

constexpr int kBins = 256;

struct Crossing {
  int32_t bin;  // -1: none
  Count above;  // weight of the bins over it
};

// At the beginning of each block's shared memory. What other blocks read comes twice and is used in turns: a block may
// write one copy while others still read the one before, and between two uses of a copy lies a team_sync.
struct Control {
  Count partial[kWarps];
  Count reduced[2];
  double mass[2];
  Count histogram[kBins];
  Count team_histogram[kBins];
  Count total;  // of the bins
  Crossing crossing;
  int32_t list_count;
};

class Team {
 public:
  SPECDEC_DEVICE explicit Team(Control* control) : control_(control), rank_(team_rank()), size_(team_size()) {}

  SPECDEC_DEVICE Control& control() const { return *control_; }
  SPECDEC_DEVICE int rank() const { return rank_; }
  SPECDEC_DEVICE int size() const { return size_; }
  SPECDEC_DEVICE bool is_leader() const { return rank_ == 0 && thread_index() == 0; }

  // The largest x of any thread.
  SPECDEC_DEVICE Count most(Count x) {
    for (int mask = 16; mask > 0; mask /= 2) x = larger(x, shuffle_xor(x, mask));
    if (lane_index() == 0) control_->partial[warp_index()] = x;
    block_sync();
    if (thread_index() == 0) {
      for (int w = 1; w < kWarps; ++w) x = larger(x, control_->partial[w]);
      control_->reduced[turn_] = x;
    }
    team_sync();
    for (int r = 0; r < size_; ++r) x = larger(x, of_rank(control_, r)->reduced[turn_]);
    turn_ ^= 1;
    return x;
  }

  SPECDEC_DEVICE bool any(bool x) { return most(x) != 0; }

  // The sum of each block's x, which its first warp holds in all lanes. Afterwards block_mass() says them one by one.
  SPECDEC_DEVICE double sum_of_blocks(double x) {
    mass_turn_ ^= 1;
    if (thread_index() == 0) control_->mass[mass_turn_] = x;
    team_sync();
    double sum = 0;
    for (int r = 0; r < size_; ++r) sum += block_mass(r);
    return sum;
  }
  SPECDEC_DEVICE double block_mass(int rank) const { return of_rank(control_, rank)->mass[mass_turn_]; }

  // Nobody leaves while others may still read here.
  SPECDEC_DEVICE void leave() { team_sync(); }

 private:
  static SPECDEC_DEVICE Count larger(Count a, Count b) { return a > b ? a : b; }

  Control* control_;
  int rank_, size_;
  int turn_ = 0, mass_turn_ = 0;
};

}  // namespace specdec::cuda
