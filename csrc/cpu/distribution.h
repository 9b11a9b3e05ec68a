// One row of logits as a filtered distribution: l / T, restricted to l >= threshold.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"

namespace specdec {

constexpr double kGreedyBelow = 1e-5;  // temperatures under this mean argmax

struct Rows {  // a [rows, vocab] matrix that is only ever read; stride counts elements
  const char* data;
  int64_t stride;
  int dtype;
  const void* row(int64_t r) const { return data + r * stride * (dtype == kFloat32 ? 4 : 2); }
};

struct SamplingView {  // arrays of one entry per request
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const float* min_p;
  const int64_t* seed;
  const int64_t* position;
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
  double weights(int64_t begin, double* out) const;
  double residual_weights(const Distribution& q, double w, int64_t begin, double* out) const;
  int block_size(int64_t begin) const;
  double find_threshold(const SamplingView& sampling, int64_t request) const;
  double cut(double budget, double floor, bool by_mass) const;
  double sum_blocks();

  const Kernels* kernels_ = nullptr;
  const RowKernels* row_kernels_ = nullptr;
  const void* row_ = nullptr;
  int64_t vocab_ = 0;
  bool greedy_ = false;
  RowScan scan_ = {};
  double inv_t_ = 1, shift_ = 0, threshold_ = 0, total_ = 1;
  std::vector<double> block_sums_;  // kept between rows, so that a walk allocates once
};

// True when row `row` holds a NaN or +inf, or nothing but -inf.
bool is_bad_row(const Rows& rows, int64_t row, int64_t vocab);

}  // namespace specdec
