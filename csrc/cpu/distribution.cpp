#include "cpu/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace specdec {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Ids [0, n) in order: the first whose cumulative weight passes `target`; failing that, the last with any weight.
int64_t walk(const double* w, int64_t n, double before, double target) {
  int64_t last = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (w[i] <= 0) continue;
    before += w[i];
    last = i;
    if (before > target) break;
  }
  return last;
}

struct Place {
  int64_t block;
  double before;  // weight of all earlier blocks
  double target;
};

Place locate(const std::vector<double>& sums, double u) {
  double total = 0;
  for (double s : sums) total += s;
  Place last = {0, 0, kInf};
  const double target = u * total;
  double before = 0;
  for (size_t b = 0; b < sums.size(); ++b) {
    if (sums[b] <= 0) continue;
    if (before + sums[b] > target) return {static_cast<int64_t>(b), before, target};
    last.block = static_cast<int64_t>(b);
    before += sums[b];
  }
  return last;  // u * total was rounded up to the total: the last token that has weight
}

bool none_left(const std::vector<double>& sums) {
  return std::all_of(sums.begin(), sums.end(), [](double s) { return s <= 0; });
}

}  // namespace

bool is_bad_row(const Rows& rows, int64_t row, int64_t vocab) {
  return kernels().rows[rows.dtype].scan(rows.row(row), vocab, nullptr).bad;
}

void Distribution::look_at(const Rows& rows, int64_t row, int64_t vocab) {
  row_.kernels = &kernels().rows[rows.dtype];
  row_.data = rows.row(row);
  row_.vocab = vocab;
}

bool Distribution::prepare(const Rows& rows, int64_t row, int64_t vocab, const SamplingView& s, int64_t request) {
  look_at(rows, row, vocab);
  block_max_.resize(row_.num_blocks());
  const RowScan found = row_.kernels->scan(row_.data, vocab, block_max_.data());
  if (found.bad) return false;
  row_.block_max = block_max_.data();
  row_.max = found.max;
  argmax_ = found.argmax;
  greedy_ = s.temperature[request] < kGreedyBelow;
  threshold_ = row_.shift = found.max;
  if (greedy_) return true;
  row_.inv_t = 1.0 / static_cast<double>(s.temperature[request]);
  threshold_ = search_.find(row_, s.top_k[request], s.top_p[request], s.min_p[request]);
  from_ = float_from(threshold_);
  look_at_kept();
  total_ = sum_blocks();
  return true;
}

void Distribution::from_stats(const Rows& rows, int64_t row, int64_t vocab, const double* stats) {
  look_at(rows, row, vocab);
  greedy_ = false;
  row_.inv_t = 1.0 / stats[0];
  row_.shift = stats[2] * stats[0];  // exp(l / T - lse) = exp((l - lse T) / T)
  threshold_ = stats[1];
  from_ = float_from(threshold_);
  total_ = 1;
}

// Where the filters leave few tokens, these are a short row of their own.
void Distribution::look_at_kept() {
  kept_ = row_;
  ids_ = nullptr;
  const Survivors* few = search_.survivors();
  if (few == nullptr) return;
  ids_ = few->ids.data();
  kept_.kernels = &kernels().rows[kFloat32];
  kept_.data = few->logits.data();
  kept_.vocab = static_cast<int64_t>(few->ids.size());
}

double Distribution::sum_blocks() {
  double total = 0;
  block_sums_.resize(kept_.num_blocks());
  for (int64_t b = 0; b < kept_.num_blocks(); ++b) {
    block_sums_[b] = ids_ != nullptr || block_max_[b] >= from_ ? kept_.exp_sum(b, from_) : 0;
    total += block_sums_[b];
  }
  return total;
}

double Distribution::logit(int64_t token) const {
  float x;
  row_.kernels->widen(row_.data, token, 1, &x);
  return x;
}

double Distribution::probability(int64_t token) const {
  if (greedy_) return token == argmax_ ? 1.0 : 0.0;
  const double l = logit(token);
  return l >= threshold_ ? std::exp((l - row_.shift) * row_.inv_t) / total_ : 0.0;
}

double Distribution::log_sum_exp() const { return row_.shift * row_.inv_t + std::log(total_); }

int64_t Distribution::draw(double u) const {
  if (greedy_) return argmax_;
  const Place place = locate(block_sums_, u);
  double w[kBlock];
  kept_.exp_block(place.block, from_, w);
  return token_at(place.block * kBlock + walk(w, kept_.size_of(place.block), place.before, place.target));
}

int64_t Distribution::draw_without(int64_t token, double u) const {
  if (greedy_) return argmax_;
  const int64_t left_out = place_of(token);
  if (left_out < 0) return draw(u);
  const int64_t block = left_out / kBlock;
  double w[kBlock];
  std::vector<double> sums = block_sums_;
  kept_.exp_block(block, from_, w);
  w[left_out % kBlock] = 0;
  sums[block] = 0;
  for (int i = 0; i < kept_.size_of(block); ++i) sums[block] += w[i];
  if (none_left(sums)) return draw(u);
  const Place place = locate(sums, u);
  kept_.exp_block(place.block, from_, w);
  if (place.block == block) w[left_out % kBlock] = 0;
  return token_at(place.block * kBlock + walk(w, kept_.size_of(place.block), place.before, place.target));
}

int64_t Distribution::token_at(int64_t place) const { return ids_ == nullptr ? place : ids_[place]; }

int64_t Distribution::place_of(int64_t token) const {
  if (ids_ == nullptr) return token;
  const int32_t* end = ids_ + kept_.vocab;
  const int32_t* found = std::lower_bound(ids_, end, token);
  return found != end && *found == token ? found - ids_ : -1;
}

// This distribution's weights at the tokens of p's block.
void Distribution::weights_at(const Distribution& p, int64_t block, double* out) const {
  if (p.ids_ == nullptr) {
    row_.exp_block(block, from_, out);
    return;
  }
  const int n = p.kept_.size_of(block);
  float x[kBlock];
  for (int i = 0; i < n; ++i) row_.kernels->widen(row_.data, p.ids_[block * kBlock + i], 1, x + i);
  kernels().rows[kFloat32].exp_block(x, 0, n, row_.inv_t, row_.shift, from_, out);
}

double Distribution::residual_weights(const Distribution& q, double w, int64_t block, double* out) const {
  double p_block[kBlock], q_block[kBlock];
  kept_.exp_block(block, from_, p_block);
  q.weights_at(*this, block, q_block);
  return kernels().residual_block(p_block, q_block, kept_.size_of(block), w / total_, 1 / q.total_, out);
}

// Where p keeps nothing, nothing is left of p - q: with few tokens kept, hardly anything of the draft row is read.
double Distribution::residual(const Distribution& q, double w, std::vector<double>& sums) const {
  double block[kBlock], total = 0;
  sums.resize(kept_.num_blocks());
  for (int64_t b = 0; b < kept_.num_blocks(); ++b) {
    sums[b] = block_sums_[b] > 0 ? residual_weights(q, w, b, block) : 0;
    total += sums[b];
  }
  return total;
}

int64_t Distribution::draw_residual(const Distribution& q, double w, const std::vector<double>& sums, double u) const {
  if (none_left(sums)) return draw(u);
  const Place place = locate(sums, u);
  double block[kBlock];
  residual_weights(q, w, place.block, block);
  return token_at(place.block * kBlock + walk(block, kept_.size_of(place.block), place.before, place.target));
}

double Distribution::overlap(const Distribution& q) const {
  double p_block[kBlock], q_block[kBlock], sum = 0;
  for (int64_t b = 0; b < kept_.num_blocks(); ++b) {
    if (block_sums_[b] <= 0) continue;
    kept_.exp_block(b, from_, p_block);
    q.weights_at(*this, b, q_block);
    sum += kernels().min_block(p_block, q_block, kept_.size_of(b), 1 / total_, 1 / q.total_);
  }
  return sum;
}

}  // namespace specdec
