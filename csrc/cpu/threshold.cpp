#include "cpu/threshold.h"

#include <cstring>

namespace specdec {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr size_t kGathered = 4096;    // so many tokens are taken out of the row; more go through a histogram first
constexpr size_t kSortedBelow = 128;  // up to here sorting is cheaper than clearing and walking a histogram

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

}  // namespace

void Survivors::keep_from(float threshold) {
  size_t kept = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (logits[i] < threshold) continue;
    ids[kept] = ids[i];
    logits[kept++] = logits[i];
  }
  ids.resize(kept);
  logits.resize(kept);
}

double ThresholdSearch::find(const Row& row, int64_t top_k, double top_p, double min_p) {
  gathered_ = false;
  double threshold = min_p > 0 ? row.max + std::log(min_p) / row.inv_t : -kInf;
  if (top_k > 0 && top_k < row.vocab) threshold = top_k_threshold(row, top_k, threshold);
  if (top_p < 1) threshold = top_p_threshold(row, top_p, threshold);
  if (!gathered_ && threshold > -kInf) gather(row, threshold);
  if (gathered_) survivors_.keep_from(float_from(threshold));
  return threshold;
}

double ThresholdSearch::top_k_threshold(const Row& row, int64_t k, double floor) {
  const double from = std::max(floor, kth_bound(row, k));
  gather(row, from);
  if (!gathered_) return cut_streaming(row, static_cast<double>(k), from, false, floor);
  if (survivors_.ids.size() < static_cast<size_t>(k)) return floor;  // min-p leaves fewer than k
  scratch_ = survivors_.logits;
  std::nth_element(scratch_.begin(), scratch_.begin() + (k - 1), scratch_.end(), std::greater<float>());
  return scratch_[k - 1];
}

double ThresholdSearch::top_p_threshold(const Row& row, double p, double floor) {
  if (gathered_) {
    const double left = weigh_survivors(row, floor);
    return narrow(0, p * left, 21, floor);
  }
  double mass = 0;
  const float from = float_from(floor);
  for (int64_t b = 0; b < row.num_blocks(); ++b) {
    if (row.block_max[b] >= from) mass += row.exp_sum(b, from);
  }
  // Tokens that weigh less than (1 - p) mass / V each weigh less than (1 - p) mass together: the threshold is not below
  // them. Half of that leaves room for rounding.
  const double light = (1 - p) * mass / static_cast<double>(2 * row.vocab);
  const double heavy = std::max(floor, row.shift + std::log(light) / row.inv_t);
  // Most often far fewer tokens will do: try the heaviest ones first, then more of them.
  double from_here = std::max(heavy, kth_bound(row, std::min<int64_t>(row.num_blocks(), 256)));
  for (;; from_here = std::max(heavy, row.max - 1.5 * (row.max - from_here) - 0.1 / row.inv_t)) {
    gather(row, from_here);
    if (!gathered_) return cut_streaming(row, p * mass, heavy, true, floor);
    const double weight = weigh_survivors(row, from_here);
    if (from_here <= heavy || weight > p * mass * (1 + 1e-9)) return narrow(0, p * mass, 21, floor);
  }
}

// All tokens from `floor` on, unless there are too many.
void ThresholdSearch::gather(const Row& row, double floor) {
  const float from = float_from(floor);
  survivors_.ids.resize(kGathered + kBlock);
  survivors_.logits.resize(kGathered + kBlock);
  size_t count = 0;
  for (int64_t b = 0; b < row.num_blocks() && count <= kGathered; ++b) {
    if (!(row.block_max[b] >= from)) continue;
    const int found = row.collect(b, from, survivors_.logits.data() + count, survivors_.ids.data() + count);
    count += found;
  }
  gathered_ = count <= kGathered;
  survivors_.ids.resize(gathered_ ? count : 0);
  survivors_.logits.resize(gathered_ ? count : 0);
}

// A logit such that at least k are at or above it (or -inf): the k-th largest of the blocks' maxima. With fewer blocks
// than that, a guess below the smallest maximum that is tried out.
double ThresholdSearch::kth_bound(const Row& row, int64_t k) {
  scratch_.assign(row.block_max, row.block_max + row.num_blocks());
  if (k <= row.num_blocks()) {
    std::nth_element(scratch_.begin(), scratch_.begin() + (k - 1), scratch_.end(), std::greater<float>());
    return scratch_[k - 1];
  }
  float least = *std::min_element(scratch_.begin(), scratch_.end());
  for (int attempt = 0; attempt < 4 && least > -kInf; ++attempt) {
    int64_t count = 0;
    visit(row, least, false, [&](const Entry&) { ++count; });
    if (count >= k) return least;
    least -= std::max(row.max - least, static_cast<float>(1 / row.inv_t));
  }
  return -kInf;
}

// f(entry) for the tokens at or above `floor`, each weighing 1, or its exp by_mass.
template <typename F>
void ThresholdSearch::visit(const Row& row, double floor, bool by_mass, F f) {
  const float from = float_from(floor);
  const RowKernels& floats = kernels().rows[kFloat32];
  float x[kBlock];
  int32_t ids[kBlock];
  double w[kBlock];
  for (int64_t b = 0; b < row.num_blocks(); ++b) {
    if (!(row.block_max[b] >= from)) continue;
    const int n = row.collect(b, from, x, ids);
    if (by_mass) floats.exp_block(x, 0, n, row.inv_t, row.shift, from, w);
    for (int i = 0; i < n; ++i) f(Entry{ordered_key(x[i]), by_mass ? w[i] : 1.0});
  }
}

// The survivors from `floor` on, with their weights, as entries_. Returns the weight of all.
double ThresholdSearch::weigh_survivors(const Row& row, double floor) {
  survivors_.keep_from(float_from(floor));
  const RowKernels& floats = kernels().rows[kFloat32];
  const std::vector<float>& x = survivors_.logits;
  double w[kBlock], mass = 0;
  entries_.clear();
  for (size_t begin = 0; begin < x.size(); begin += kBlock) {
    const int n = static_cast<int>(std::min<size_t>(kBlock, x.size() - begin));
    mass += floats.exp_block(x.data(), static_cast<int64_t>(begin), n, row.inv_t, row.shift, -kInf, w);
    for (int i = 0; i < n; ++i) entries_.push_back({ordered_key(x[begin + i]), w[i]});
  }
  return mass;
}

// The lowest logit v >= floor for which the tokens above v weigh less than `budget`: all tokens tied at v stay;
// `otherwise` if the budget lasts. A radix descent over the ordered float key, 11 + 11 + 10 bits, of which the first
// step reads the row.
double ThresholdSearch::cut_streaming(const Row& row, double budget, double floor, bool by_mass, double otherwise) {
  Histogram histogram;
  visit(row, floor, by_mass, [&](const Entry& e) { histogram.weight[e.key >> 21] += e.weight; });
  double above = 0;
  const int bucket = histogram.crossing(above, budget);
  if (bucket < 0) return otherwise;
  entries_.clear();
  visit(row, floor, by_mass, [&](const Entry& e) {
    if (static_cast<int>(e.key >> 21) == bucket) entries_.push_back(e);
  });
  return narrow(above, budget, 10, lowest_entry());
}

// Among entries_, given `above` for the highest. Summed in another order a bucket may fall short of its budget by a
// rounding error: then all of it stays.
double ThresholdSearch::narrow(double above, double budget, int shift, double otherwise) {
  for (; shift >= 0 && entries_.size() > kSortedBelow; shift = shift == 21 ? 10 : shift - 10) {
    const uint32_t mask = shift == 0 ? 1023u : 2047u;
    Histogram histogram;
    for (const Entry& e : entries_) histogram.weight[(e.key >> shift) & mask] += e.weight;
    const int bucket = histogram.crossing(above, budget);
    if (bucket < 0) return otherwise;
    entries_.erase(std::remove_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& e) { return static_cast<int>((e.key >> shift) & mask) != bucket; }),
                   entries_.end());
    otherwise = lowest_entry();
  }
  return sorted_cut(above, budget, otherwise);
}

double ThresholdSearch::sorted_cut(double above, double budget, double otherwise) {
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.key > b.key; });
  uint32_t lowest = entries_.front().key;
  for (const Entry& e : entries_) {
    if (e.key != lowest && above >= budget) return from_ordered_key(lowest);
    lowest = e.key;
    above += e.weight;
  }
  return above >= budget ? from_ordered_key(lowest) : otherwise;
}

float ThresholdSearch::lowest_entry() const {
  const auto lower = [](const Entry& a, const Entry& b) { return a.key < b.key; };
  return from_ordered_key(std::min_element(entries_.begin(), entries_.end(), lower)->key);
}

}  // namespace specdec
