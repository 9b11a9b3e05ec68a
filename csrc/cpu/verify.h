// What the two rules share: a request's place in the task, its drafts, and the loop over the requests.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/api.h"
#include "cpu/parallel.h"
#include "cpu/philox.h"

namespace specdec {

struct Request {
  int64_t index;
  int32_t num_drafts;
  int64_t first_draft, first_row;  // among all draft tokens, among all target rows
  int64_t seed, position;
  int32_t* tokens;      // outputs, from here on this request's own
  int32_t* accepted;    // one number
  float* expected;      // [num_drafts] or null
  float* accept_probs;  // [num_drafts]

  double uniform(int32_t offset, Purpose purpose) const { return philox_uniform(seed, position + offset, purpose); }
  Outcome bad_row(int32_t i) const { return {kBadRow, index, first_row + i}; }
};

// What is known of q at one draft: nothing (its token is no token, or its row is broken), a point mass, or a row.
enum class Q { kNothing, kPoint, kRow };

struct DraftToken {
  int64_t token = -1;
  Q kind = Q::kNothing;
  double probability = 0;  // q(token)
  Distribution q;          // where kind is kRow

  void load(const VerifyTask& task, const Request& request, int32_t i);
  double overlap(const Distribution& p) const;  // sum of min(p, q)
};

// min(1, p / q); for q = 0, which no draft from q has, 1 or with p = 0 too 0.
inline double clipped_ratio(double p, double q) { return p < q ? p / q : (p > 0 ? 1 : 0); }

class TokenRule {
 public:
  explicit TokenRule(const VerifyTask& task) : task_(task) {}
  Outcome run(const Request& request);

 private:
  int64_t recover(double u);

  const VerifyTask& task_;
  Distribution p_;
  DraftToken draft_;
  std::vector<double> residual_;
};

// Rule(task).run(request) for every request, with outputs padded in advance. Returns the first fault by request.
template <typename Rule>
Outcome verify_requests(const VerifyTask& task) {
  std::vector<int64_t> first_draft(task.num_requests + 1, 0);
  for (int64_t b = 0; b < task.num_requests; ++b) first_draft[b + 1] = first_draft[b] + task.counts[b];
  const int64_t drafts = first_draft[task.num_requests];
  std::fill_n(task.out_tokens, task.num_requests * task.out_width, -1);
  std::fill_n(task.out_accept_probs, drafts, std::numeric_limits<float>::quiet_NaN());
  std::vector<Outcome> outcomes(task.num_requests);
  parallel_for(task.num_requests, (2 * drafts + task.num_requests) * task.vocab, task.max_threads, [&] {
    return [&, rule = Rule(task)](int64_t b) mutable {
      if (const Fault fault = check_sampling(task.sampling, b); fault != kNone) {
        outcomes[b] = {fault, b, -1};
        return;
      }
      const int64_t first = first_draft[b];
      outcomes[b] = rule.run({b, task.counts[b], first, first + b, task.sampling.seed[b], task.sampling.position[b],
                              task.out_tokens + b * task.out_width, task.out_accepted + b,
                              task.out_expected ? task.out_expected + first : nullptr, task.out_accept_probs + first});
    };
  });
  for (const Outcome& outcome : outcomes) {
    if (outcome.fault != kNone) return outcome;
  }
  return {};
}

}  // namespace specdec
