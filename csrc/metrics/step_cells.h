// What a verify step adds to a worker's cells (specdec/metrics/cells.py), in one call: behind a forward pass, whose
// weights have filled the caches, each of the many small operations that NumPy would need takes tens of microseconds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace specdec {

// n numbers of any of the types that figures come in.
struct Numbers {
  enum Type { kUint8, kInt32, kInt64, kFloat32, kFloat64 };
  const void* data;
  int64_t size;
  Type type;

  double operator[](int64_t i) const {
    switch (type) {
      case kUint8:
        return static_cast<const uint8_t*>(data)[i];
      case kInt32:
        return static_cast<const int32_t*>(data)[i];
      case kInt64:
        return static_cast<double>(static_cast<const int64_t*>(data)[i]);
      case kFloat32:
        return static_cast<const float*>(data)[i];
      default:
        return static_cast<const double*>(data)[i];
    }
  }
};

// Where the fields begin in the cells; those by position have `positions` cells, bonus one more, tokens_per_step two.
struct StepFields {
  int64_t positions;
  int64_t steps, undrafted_steps, draft_tokens, reached, accepted, recovered, bonus, expected_sum, tokens_per_step;
};

// One step of B requests with counts [B] drafts, of which accepted [B] were; probability [N]: of each draft's
// acceptance, request-major, not a number where it was not reached. Left out are requests that are `unfinished` [B],
// and those not in `mine` [B]; either may be empty. Later positions than there are cells for are counted by request
// alone.
inline void add_step(double* cells, const StepFields& f, const std::vector<int32_t>& counts, const Numbers& accepted,
                     const Numbers& probability, const Numbers& unfinished, const Numbers& mine) {
  const int64_t batch = static_cast<int64_t>(counts.size());
  int64_t drafts = 0;
  for (int64_t b = 0; b < batch; ++b) {
    if (counts[b] < 0) throw std::invalid_argument("a request has a negative number of drafts");
    drafts += counts[b];
  }
  const auto fits = [batch](const Numbers& n) { return n.size == 0 || n.size == batch; };
  if (accepted.size != batch || probability.size != drafts || !fits(unfinished) || !fits(mine))
    throw std::invalid_argument("the figures of a step are not of its requests and drafts");
  for (int64_t b = 0, first = 0; b < batch; first += counts[b++]) {
    if ((unfinished.size && unfinished[b] != 0) || (mine.size && mine[b] == 0)) continue;
    if (counts[b] == 0) {
      cells[f.undrafted_steps] += 1;
      continue;
    }
    const double told = accepted[b];
    if (!(told >= 0 && told <= counts[b])) throw std::invalid_argument("more drafts are accepted than there were");
    const int64_t kept = static_cast<int64_t>(told), places = std::min<int64_t>(counts[b], f.positions);
    const bool every = kept == counts[b];
    cells[f.steps] += 1;
    cells[f.tokens_per_step + std::min(kept, f.positions) + 1] += 1;
    if (every) {
      cells[f.bonus + places] += 1;
    } else if (kept < f.positions) {
      cells[f.recovered + kept] += 1;
    }
    for (int64_t i = 0; i < places; ++i) {
      const double expected = probability[first + i];
      cells[f.draft_tokens + i] += 1;
      cells[f.accepted + i] += i < kept;
      cells[f.reached + i] += i <= kept;
      if (expected > 0) cells[f.expected_sum + i] += expected;  // not where it is no number
    }
  }
}

}  // namespace specdec
