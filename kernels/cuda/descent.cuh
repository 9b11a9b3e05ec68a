// Radix descent: the key at which a rank, or a mass, is passed when tokens are counted from the largest down.
//
// 256 bins over the range of keys that is left, then the bins of the bin in which it is passed, until a bin holds one
// key: one step for bfloat16 as a rule, three or four for float32. Masses are integers, in units of 2^-44 of the
// largest weight for 200,000 tokens: their sums do not depend on the order of the additions.
#pragma once

#include "cuda/element.cuh"
#include "cuda/team.cuh"

namespace specdec::cuda {

// The rank, or the mass in units, to reach; as a share: of all that the first step finds.
struct Budget {
  double amount;
  bool by_mass, is_share;
};

template <typename E>
class Descent {
 public:
  SPECDEC_DEVICE Descent(Team& team, int64_t vocab, float max, double inv_t) : team_(team), max_(max), inv_t_(inv_t) {
    one_ = static_cast<double>(Count(1) << (30 + leading_zeros(static_cast<uint32_t>(vocab))));
  }

  SPECDEC_DEVICE double units(double mass) const { return mass * one_; }

  // One step: narrows [low, high] to the bin in which the budget is passed. False where none is.
  // visit(from, add): add(key) for the thread's own tokens, at least for those of keys >= from.
  template <typename Visit>
  SPECDEC_DEVICE bool step(uint32_t& low, uint32_t& high, Count& above, Budget& budget, const Visit& visit) {
    const int width = 32 - leading_zeros(high - low);
    const int shift = width > 8 ? width - 8 : 0;
    for (int bin = thread_index(); bin < kBins; bin += kThreads) control().histogram[bin] = 0;
    block_sync();
    visit(low, [&](uint32_t key) {
      if (key <= high)
        atomic_add(&control().histogram[(key - low) >> shift], budget.by_mass ? weight_of(key) : Count(1));
    });
    team_sync();
    for (int bin = thread_index(); bin < kBins; bin += kThreads) {
      Count sum = 0;
      for (int r = 0; r < team_.size(); ++r) sum += of_rank(&control(), r)->histogram[bin];
      control().team_histogram[bin] = sum;
    }
    block_sync();
    if (warp_index() == 0) find_crossing(above, budget);
    team_sync();
    if (budget.is_share) {
      budget.amount *= static_cast<double>(control().total);
      budget.is_share = false;
    }
    const Crossing found = control().crossing;
    if (found.bin < 0) return false;
    above = found.above;
    low += static_cast<uint32_t>(found.bin) << shift;
    const uint32_t rest = (1u << shift) - 1;  // low + rest may lie beyond the largest number
    high = high - low > rest ? low + rest : high;
    return true;
  }

 private:
  SPECDEC_DEVICE Control& control() const { return team_.control(); }

  SPECDEC_DEVICE Count weight_of(uint32_t key) const {
    return static_cast<Count>(exp((static_cast<double>(logit_of<E>(key)) - max_) * inv_t_) * one_);
  }

  // For one warp; lane 0 has the highest bins.
  SPECDEC_DEVICE void find_crossing(Count above, const Budget& budget) {
    constexpr int kEach = kBins / 32;
    const int top = kBins - 1 - kEach * lane_index();
    Count mine = 0;
    for (int i = 0; i < kEach; ++i) mine += control().team_histogram[top - i];
    const Count through = warp_scan(mine), total = shuffle(through, 31);
    const double amount = budget.is_share ? budget.amount * static_cast<double>(total) : budget.amount;
    const unsigned hits = ballot(mine > 0 && static_cast<double>(above + through) >= amount);
    if (lane_index() == 0) {
      control().total = total;
      if (hits == 0) control().crossing.bin = -1;
    }
    if (hits == 0 || lane_index() != lowest_bit(hits)) return;
    Crossing found = {top, above + through - mine};
    for (; found.bin > top - kEach + 1; --found.bin) {
      const Count weight = control().team_histogram[found.bin];
      if (weight > 0 && static_cast<double>(found.above + weight) >= amount) break;
      found.above += weight;
    }
    control().crossing = found;
  }

  Team& team_;
  float max_;
  double inv_t_;
  double one_;  // the units of a token of weight 1: V of them do not overflow
};

}  // namespace specdec::cuda
