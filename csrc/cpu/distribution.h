// One row of logits as a filtered distribution: l / T, restricted to l >= threshold.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/row.h"
#include "cpu/sampling.h"
#include "cpu/threshold.h"

namespace specdec {

struct Rows {  // a [rows, vocab] matrix that is only ever read; stride counts elements
  const char* data;
  int64_t stride;
  int dtype;
  const void* row(int64_t r) const { return data + r * stride * (dtype == kFloat32 ? 4 : 2); }
};

class Distribution {
 public:
  // Reads the row's maximum, finds the filters' threshold and sums the weights. False when the row is bad.
  bool prepare(const Rows& rows, int64_t row, int64_t vocab, const SamplingView& sampling, int64_t request);
  // The same from a draft row's stored statistics: reads nothing of the row yet.
  void from_stats(const Rows& rows, int64_t row, int64_t vocab, const double* stats);

  bool greedy() const { return greedy_; }
  double logit(int64_t token) const;
  double probability(int64_t token) const;
  double threshold() const { return threshold_; }
  double log_sum_exp() const;  // of l / T over the kept tokens

  // The sum of max(w p - q, 0), and in `sums` that of each block, for draw_residual.
  double residual(const Distribution& q, double w, std::vector<double>& sums) const;

  // Inverse CDF in token-id order. draw_without leaves one token out; draw_residual draws from max(w p - q, 0).
  // Both fall back to the whole of p where rounding leaves them no mass.
  int64_t draw(double u) const;
  int64_t draw_without(int64_t token, double u) const;
  int64_t draw_residual(const Distribution& q, double w, const std::vector<double>& sums, double u) const;
  double overlap(const Distribution& q) const;  // sum of min(p, q)

 private:
  void look_at(const Rows& rows, int64_t row, int64_t vocab);
  void look_at_kept();
  int64_t token_at(int64_t place) const;  // in kept_
  int64_t place_of(int64_t token) const;  // -1: not kept
  void weights_at(const Distribution& p, int64_t block, double* out) const;
  double residual_weights(const Distribution& q, double w, int64_t block, double* out) const;
  double sum_blocks();

  Row row_;
  Row kept_;                      // what the weights are taken of: row_, or the few tokens that the filters leave
  const int32_t* ids_ = nullptr;  // of the tokens in kept_; null: kept_ is row_
  int64_t argmax_ = 0;
  bool greedy_ = false;
  double threshold_ = 0, total_ = 1;
  float from_ = 0;  // the threshold among floats
  // Kept between rows, so that a walk allocates once.
  std::vector<float> block_max_;
  std::vector<double> block_sums_;  // 0 where a block keeps nothing
  ThresholdSearch search_;
};

// True when row `row` holds a NaN or +inf, or nothing but -inf.
bool is_bad_row(const Rows& rows, int64_t row, int64_t vocab);

}  // namespace specdec
