// Temperature, then min-p, then top-k, then top-p over what is left (vLLM's order), all as ONE threshold on the raw
// logit; definition and ties: specdec/sampling/filters.py. Nothing is sorted.
//
// 1. A bound under the threshold. The k-th largest of the threads' maxima is not above the k-th largest logit. For
//    top-p: most often the heaviest few tokens hold the mass p; otherwise, tokens lighter than (1 - p) Z / V each weigh
//    less than (1 - p) Z together, and cannot be kept by their mass.
// 2. The tokens from the bound on, most often few, are listed in shared memory. A block whose list overflows looks
//    through its slice instead.
// 3. A radix descent over the keys of these (descent.cuh).
#pragma once

#include "cuda/descent.cuh"
#include "cuda/survey.cuh"

namespace specdec::cuda {

struct Filters {
  double temperature, inv_t, top_p, min_p;
  int64_t top_k;

  SPECDEC_DEVICE Filters(const SamplingView& s, int64_t request)
      : temperature(s.temperature[request]),
        inv_t(1 / temperature),
        top_p(s.top_p[request]),
        min_p(s.min_p[request]),
        top_k(s.top_k[request]) {}
};

template <typename E>
class ThresholdSearch {
 public:
  SPECDEC_DEVICE ThresholdSearch(Team& team, const Row<E>& row, const Workspace& space, const Survey& seen,
                                 const Filters& filters)
      : team_(team),
        row_(row),
        space_(space),
        seen_(seen),
        filters_(filters),
        descent_(team, row.vocab(), seen.max, filters.inv_t) {}

  // -inf where nothing is filtered. `mass(from)`: the sum of the weights of all tokens from that logit on.
  template <typename Mass>
  SPECDEC_DEVICE double find(const Mass& mass) {
    double threshold = filters_.min_p > 0 ? seen_.max + filters_.temperature * log(filters_.min_p) : -kInf;
    bool by_rank = filters_.top_k > 0 && filters_.top_k < row_.vocab();
    const bool by_mass = filters_.top_p < 1;
    if (!by_rank && !by_mass) return threshold;
    Goal goal = by_rank ? top_k(threshold) : top_p(threshold, mass(float_from(threshold)));
    uint32_t from = larger(goal.lowest, bound(goal.at_least));
    // Each part of the search is inlined, and stands here once: that halves what there is to compile.
    for (bool listed = false;;) {
      if (!listed) list_from(from);
      const double found = cut(from, goal.budget);
      listed = found > -kInf || from <= goal.lowest;  // most often at once
      if (listed) {
        threshold = fmax(threshold, found);
        if (!by_rank || !by_mass) return threshold;
        by_rank = false;
        goal = top_p_of_listed(threshold);
      }
      from = goal.lowest;
    }
  }

 private:
  SPECDEC_DEVICE Control& control() const { return team_.control(); }
  SPECDEC_DEVICE uint32_t key_of_max() const { return key_of<E>(seen_.max); }
  SPECDEC_DEVICE static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

  // Where the budget is passed among the keys >= lowest; `at_least` so many tokens from the threshold on are likely.
  struct Goal {
    uint32_t lowest;
    Budget budget;
    double at_least;
  };

  SPECDEC_DEVICE Goal top_k(double floor) const {
    const double k = static_cast<double>(filters_.top_k);
    return {key_from<E>(float_from(floor)), {k, false, false}, k};
  }

  SPECDEC_DEVICE Goal top_p_of_listed(double threshold) const {
    return {key_from<E>(float_from(threshold)), {filters_.top_p, true, true}, 0};
  }

  SPECDEC_DEVICE Goal top_p(double floor, double mass) const {
    const double light = (1 - filters_.top_p) * mass / static_cast<double>(row_.vocab());
    // Half of it leaves room for rounding.
    const double heavy = fmax(floor, seen_.max + filters_.temperature * log(light / 2));
    return {key_from<E>(float_from(heavy)), {descent_.units(filters_.top_p * mass), true, false}, kThreads / 2};
  }

  // A key with at least `rank` tokens from it on; 0 where the threads' maxima do not tell.
  SPECDEC_DEVICE uint32_t bound(double rank) {
    const uint32_t mine = key_of<E>(seen_.mine), none = key_of<E>(-kInf);
    const uint32_t lowest = ~static_cast<uint32_t>(team_.most(mine > none ? static_cast<uint32_t>(~mine) : 0));
    uint32_t low = lowest, high = key_of_max();
    if (low > high) return 0;
    Count above = 0;
    Budget budget = {rank, false, false};
    const auto visit = [&](uint32_t from, auto add) {
      if (mine >= from) add(mine);
    };
    return descent_.step(low, high, above, budget, visit) ? low : 0;
  }

  SPECDEC_DEVICE void list_from(uint32_t from) {
    block_sync();
    if (thread_index() == 0) control().list_count = 0;
    block_sync();
    visit_slice(from, [&](uint32_t key) {
      const int at = atomic_add(&control().list_count, 1);
      if (at < kListCapacity) space_.list[at] = key;
    });
    block_sync();
  }

  template <typename F>
  SPECDEC_DEVICE void visit_slice(uint32_t from, F f) const {
    for_each_tile(row_, [&](int tile) {
      if (key_of<E>(space_.tile_max[tile]) < from) return;
      for_each_octet(row_, tile, [&](const float (&x)[kOctet], int64_t) {
        for (int k = 0; k < kOctet; ++k) {
          const uint32_t key = key_of<E>(x[k]);
          if (key >= from) f(key);
        }
      });
    });
  }

  // The logit at which the budget is passed, coming from above: all tokens tied with it stay. -inf where the budget
  // lasts beyond `low`.
  SPECDEC_DEVICE double cut(uint32_t low, Budget budget) {
    uint32_t high = key_of_max();
    if (low > high) return -kInf;  // min-p with rounding: the maximum itself
    Count above = 0;
    const int listed = control().list_count;
    const auto visit = [&](uint32_t from, auto add) {
      if (listed > kListCapacity) {
        visit_slice(from, add);
        return;
      }
      for (int i = thread_index(); i < listed; i += kThreads) {
        if (space_.list[i] >= from) add(space_.list[i]);
      }
    };
    do {
      if (!descent_.step(low, high, above, budget, visit)) return -kInf;
    } while (low < high);
    return logit_of<E>(low);
  }

  Team& team_;
  const Row<E>& row_;
  const Workspace& space_;
  const Survey& seen_;
  const Filters& filters_;
  Descent<E> descent_;
};

}  // namespace specdec::cuda
