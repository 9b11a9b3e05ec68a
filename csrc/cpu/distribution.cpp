#include "cpu/distribution.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace specdec {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Order-preserving map from float to unsigned. Adding 0 turns -0 into +0, which compare equal.
inline uint32_t ordered_key(float x) {
  x += 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

inline float from_ordered_key(uint32_t key) {
  const uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

struct Entry {
  uint32_t key;
  double weight;
};

inline bool by_key(const Entry& a, const Entry& b) { return a.key < b.key; }

constexpr int kSortedBelow = 128;  // up to here sorting is cheaper than clearing and walking a histogram

struct Histogram {
  double weight[2048] = {};

  // From the top: the bucket in which `above` reaches the budget, with the weight of the buckets over it added to
  // `above`; or -1 when there is budget left at the end.
  int crossing(double& above, double budget) const {
    for (int b = 2047; b >= 0; --b) {
      if (weight[b] > 0 && above + weight[b] >= budget) return b;
      above += weight[b];
    }
    return -1;
  }
};

// The lowest logit with less than `budget` above it, given `above` for the highest; `otherwise` if the budget lasts.
double sorted_cut(std::vector<Entry>& entries, double above, double budget, double otherwise) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return by_key(b, a); });
  uint32_t lowest = entries.front().key;
  for (const Entry& e : entries) {
    if (e.key != lowest && above >= budget) return from_ordered_key(lowest);
    lowest = e.key;
    above += e.weight;
  }
  return above >= budget ? from_ordered_key(lowest) : otherwise;
}

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
  return kernels().rows[rows.dtype].scan(rows.row(row), vocab).bad;
}

bool Distribution::prepare(const Rows& rows, int64_t row, int64_t vocab, const SamplingView& s, int64_t request) {
  kernels_ = &kernels();
  row_kernels_ = &kernels_->rows[rows.dtype];
  row_ = rows.row(row);
  vocab_ = vocab;
  scan_ = row_kernels_->scan(row_, vocab);
  if (scan_.bad) return false;
  greedy_ = s.temperature[request] < kGreedyBelow;
  threshold_ = shift_ = scan_.max;
  if (greedy_) return true;
  inv_t_ = 1.0 / static_cast<double>(s.temperature[request]);
  threshold_ = find_threshold(s, request);
  total_ = sum_blocks();
  return true;
}

void Distribution::from_stats(const Rows& rows, int64_t row, int64_t vocab, const double* stats) {
  kernels_ = &kernels();
  row_kernels_ = &kernels_->rows[rows.dtype];
  row_ = rows.row(row);
  vocab_ = vocab;
  greedy_ = false;
  inv_t_ = 1.0 / stats[0];
  threshold_ = stats[1];
  shift_ = stats[2] * stats[0];  // exp(l / T - lse) = exp((l - lse T) / T)
  total_ = 1;
}

int Distribution::block_size(int64_t begin) const {
  return static_cast<int>(std::min<int64_t>(kBlock, vocab_ - begin));
}

double Distribution::weights(int64_t begin, double* out) const {
  return row_kernels_->exp_block(row_, begin, block_size(begin), inv_t_, shift_, threshold_, out);
}

double Distribution::sum_blocks() {
  double w[kBlock], total = 0;
  block_sums_.clear();
  for (int64_t begin = 0; begin < vocab_; begin += kBlock) {
    block_sums_.push_back(weights(begin, w));
    total += block_sums_.back();
  }
  return total;
}

// T, then min-p, then top-k, then top-p over what is left (vLLM's order), all as one threshold on the raw logit.
double Distribution::find_threshold(const SamplingView& s, int64_t request) const {
  const double min_p = s.min_p[request], top_p = s.top_p[request];
  const int64_t top_k = s.top_k[request];
  double threshold = min_p > 0 ? scan_.max + std::log(min_p) / inv_t_ : -kInf;
  if (top_k > 0 && top_k < vocab_) threshold = cut(static_cast<double>(top_k), threshold, false);
  if (top_p < 1) {
    double w[kBlock], mass = 0;
    for (int64_t begin = 0; begin < vocab_; begin += kBlock) {
      mass += row_kernels_->exp_block(row_, begin, block_size(begin), inv_t_, shift_, threshold, w);
    }
    threshold = cut(top_p * mass, threshold, true);
  }
  return threshold;
}

// The lowest logit v >= floor for which the tokens above v weigh less than `budget` (each 1, or its exp by_mass): all
// tokens tied at v stay. A radix descent over the ordered float key, 11 + 11 + 10 bits: the first level reads the row,
// the others only the bucket in which the budget runs out. A few entries are sorted instead.
double Distribution::cut(double budget, double floor, bool by_mass) const {
  double w[kBlock];
  float x[kBlock];
  auto visit = [&](auto f) {
    for (int64_t begin = 0; begin < vocab_; begin += kBlock) {
      const int n = block_size(begin);
      row_kernels_->widen(row_, begin, n, x);
      if (by_mass) row_kernels_->exp_block(row_, begin, n, inv_t_, shift_, floor, w);
      for (int i = 0; i < n; ++i) {
        if (x[i] >= floor) f(Entry{ordered_key(x[i]), by_mass ? w[i] : 1.0});
      }
    }
  };
  std::vector<Entry> entries;
  double above = 0;
  if (vocab_ <= kSortedBelow) {
    visit([&](Entry e) { entries.push_back(e); });
    return sorted_cut(entries, above, budget, floor);
  }
  Histogram histogram;
  visit([&](Entry e) { histogram.weight[e.key >> 21] += e.weight; });
  const int first = histogram.crossing(above, budget);
  if (first < 0) return floor;
  visit([&](Entry e) {
    if (static_cast<int>(e.key >> 21) == first) entries.push_back(e);
  });
  for (int shift = 10; shift >= 0 && entries.size() > kSortedBelow; shift -= 10) {
    const uint32_t mask = shift == 10 ? 2047u : 1023u;
    histogram = Histogram();
    for (const Entry& e : entries) histogram.weight[(e.key >> shift) & mask] += e.weight;
    const int bucket = histogram.crossing(above, budget);
    // Summed in another order the bucket may fall short by a rounding error: then all of it stays.
    if (bucket < 0) return from_ordered_key(std::min_element(entries.begin(), entries.end(), by_key)->key);
    entries.erase(std::remove_if(entries.begin(), entries.end(),
                                 [&](const Entry& e) { return static_cast<int>((e.key >> shift) & mask) != bucket; }),
                  entries.end());
  }
  const Entry& lowest = *std::min_element(entries.begin(), entries.end(), by_key);
  return sorted_cut(entries, above, budget, from_ordered_key(lowest.key));
}

double Distribution::logit(int64_t token) const {
  float x;
  row_kernels_->widen(row_, token, 1, &x);
  return x;
}

double Distribution::probability(int64_t token) const {
  if (greedy_) return token == scan_.argmax ? 1.0 : 0.0;
  const double l = logit(token);
  return l >= threshold_ ? std::exp((l - shift_) * inv_t_) / total_ : 0.0;
}

double Distribution::log_sum_exp() const { return shift_ * inv_t_ + std::log(total_); }

int64_t Distribution::draw(double u) const {
  if (greedy_) return scan_.argmax;
  const Place place = locate(block_sums_, u);
  double w[kBlock];
  weights(place.block * kBlock, w);
  return place.block * kBlock + walk(w, block_size(place.block * kBlock), place.before, place.target);
}

int64_t Distribution::draw_without(int64_t token, double u) const {
  if (greedy_) return scan_.argmax;
  const int64_t block = token / kBlock, begin = block * kBlock;
  double w[kBlock];
  std::vector<double> sums = block_sums_;
  weights(begin, w);
  w[token - begin] = 0;
  sums[block] = 0;
  for (int i = 0; i < block_size(begin); ++i) sums[block] += w[i];
  if (none_left(sums)) return draw(u);
  const Place place = locate(sums, u);
  const int64_t start = place.block * kBlock;
  weights(start, w);
  if (place.block == block) w[token - begin] = 0;
  return start + walk(w, block_size(start), place.before, place.target);
}

double Distribution::residual_weights(const Distribution& q, double w, int64_t begin, double* out) const {
  double p_block[kBlock], q_block[kBlock];
  weights(begin, p_block);
  q.weights(begin, q_block);
  return kernels_->residual_block(p_block, q_block, block_size(begin), w / total_, 1 / q.total_, out);
}

double Distribution::residual(const Distribution& q, double w, std::vector<double>& sums) const {
  double block[kBlock], total = 0;
  sums.clear();
  for (int64_t begin = 0; begin < vocab_; begin += kBlock) {
    sums.push_back(residual_weights(q, w, begin, block));
    total += sums.back();
  }
  return total;
}

int64_t Distribution::draw_residual(const Distribution& q, double w, const std::vector<double>& sums, double u) const {
  if (none_left(sums)) return draw(u);
  const Place place = locate(sums, u);
  const int64_t start = place.block * kBlock;
  double block[kBlock];
  residual_weights(q, w, start, block);
  return start + walk(block, block_size(start), place.before, place.target);
}

double Distribution::overlap(const Distribution& q) const {
  double p_block[kBlock], q_block[kBlock], sum = 0;
  for (int64_t begin = 0; begin < vocab_; begin += kBlock) {
    weights(begin, p_block);
    q.weights(begin, q_block);
    sum += kernels_->min_block(p_block, q_block, block_size(begin), 1 / total_, 1 / q.total_);
  }
  return sum;
}

}  // namespace specdec
