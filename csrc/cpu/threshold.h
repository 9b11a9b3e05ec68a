// Temperature, then min-p, then top-k, then top-p over what is left (vLLM's order), all as ONE threshold on the raw
// logit. Tokens tied with the last one kept are all kept. The vocabulary is never sorted.
#pragma once

#include <vector>

#include "cpu/row.h"

namespace specdec {

// Tokens and their logits, in order of their ids.
struct Survivors {
  std::vector<int32_t> ids;
  std::vector<float> logits;

  void keep_from(float threshold);
};

class ThresholdSearch {
 public:
  // top_k: 0 or at least the vocabulary = off; top_p: 1 = off; min_p: 0 = off. -inf where nothing is filtered.
  double find(const Row& row, int64_t top_k, double top_p, double min_p);

  // The tokens at or above the threshold that find() returned, where there are not too many of them; or null.
  const Survivors* survivors() const { return gathered_ ? &survivors_ : nullptr; }

 private:
  struct Entry {
    uint32_t key;
    double weight;
  };

  void gather(const Row& row, double floor);
  double top_k_threshold(const Row& row, int64_t k, double floor);
  double top_p_threshold(const Row& row, double p, double floor);
  double kth_bound(const Row& row, int64_t k);
  double weigh_survivors(const Row& row, double floor);
  double cut_streaming(const Row& row, double budget, double floor, bool by_mass, double otherwise);
  double narrow(double above, double budget, int shift, double otherwise);
  double sorted_cut(double above, double budget, double otherwise);
  float lowest_entry() const;
  template <typename F>
  void visit(const Row& row, double floor, bool by_mass, F f);

  Survivors survivors_;
  bool gathered_ = false;  // survivors_ are all the tokens from some floor on that is not above the threshold
  std::vector<Entry> entries_;
  std::vector<float> scratch_;
};

}  // namespace specdec
