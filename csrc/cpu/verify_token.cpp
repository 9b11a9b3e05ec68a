// Token verification (Leviathan et al., arXiv 2211.17192, algorithm 1), one request at a time:
//   accept draft token x where u q(x) < p(x); on the first rejection draw from normalise(max(p - q, 0)) and stop;
//   after the last acceptance draw the bonus token from p. Definition: specdec/verify/reference.py.
#include <cmath>
#include <limits>

#include "cpu/api.h"
#include "cpu/parallel.h"
#include "cpu/philox.h"

namespace specdec {
namespace {

// What is known of q at one draft: nothing (its token is no token, or its row is broken), a point mass, or a row.
enum class Q { kNothing, kPoint, kRow };

class Walker {
 public:
  explicit Walker(const VerifyTask& task) : task_(task) {}

  Outcome run(int64_t request, int64_t first_draft) {
    const SamplingView& s = task_.sampling;
    const int32_t n = task_.counts[request];
    const int64_t first_row = first_draft + request, position = s.position[request];
    int32_t* out = task_.out_tokens + request * task_.out_width;
    for (int64_t i = 0; i < task_.out_width; ++i) out[i] = -1;
    if (const Fault fault = check_sampling(s, request); fault != kNone) return {fault, request, -1};

    int32_t accepted = 0;
    bool alive = true;
    for (int32_t j = 0; j < n; ++j) {
      const int64_t draft = first_draft + j;
      task_.out_accept_probs[draft] = std::numeric_limits<float>::quiet_NaN();
      if (!alive && task_.out_expected == nullptr) {  // only looked at, so that an error does not depend on the draws
        if (is_bad_row(task_.target, first_row + j, task_.vocab)) return {kBadRow, request, first_row + j};
        continue;
      }
      if (!p_.prepare(task_.target, first_row + j, task_.vocab, s, request)) return {kBadRow, request, first_row + j};
      const int64_t token = token_at(draft);
      const Q kind = load_q(request, draft, token);
      const double px = kind == Q::kNothing ? 0 : p_.probability(token);
      const double qx = kind == Q::kRow ? qx_ : 1;
      if (task_.out_expected) {
        task_.out_expected[draft] = static_cast<float>(kind == Q::kRow ? p_.overlap(q_) : px);
      }
      if (!alive) continue;
      task_.out_accept_probs[draft] = static_cast<float>(px < qx ? px / qx : (px > 0 ? 1 : 0));
      if (philox_uniform(s.seed[request], position + j, kAccept) * qx < px) {
        out[accepted++] = static_cast<int32_t>(token);
      } else {
        alive = false;
        out[accepted] = recover(kind, token, philox_uniform(s.seed[request], position + j, kRecover));
      }
    }
    const int64_t bonus_row = first_row + n;
    if (alive) {
      if (!p_.prepare(task_.target, bonus_row, task_.vocab, s, request)) return {kBadRow, request, bonus_row};
      out[accepted] = static_cast<int32_t>(p_.draw(philox_uniform(s.seed[request], position + n, kBonus)));
    } else if (is_bad_row(task_.target, bonus_row, task_.vocab)) {
      return {kBadRow, request, bonus_row};
    }
    task_.out_accepted[request] = accepted;
    return {};
  }

 private:
  int64_t token_at(int64_t draft) const {
    return task_.tokens_are_int64 ? static_cast<const int64_t*>(task_.tokens)[draft]
                                  : static_cast<const int32_t*>(task_.tokens)[draft];
  }

  // Sets q_ and qx_ = q(token) where q is a row.
  Q load_q(int64_t request, int64_t draft, int64_t token) {
    if (token < 0 || token >= task_.vocab) return Q::kNothing;
    if (p_.greedy() || task_.draft.data == nullptr) return Q::kPoint;
    if (task_.stats == nullptr) {
      if (!q_.prepare(task_.draft, draft, task_.vocab, task_.sampling, request)) return Q::kNothing;
      qx_ = q_.probability(token);
      return Q::kRow;
    }
    const double* stats = task_.stats + 4 * draft;
    if (stats[0] == 0) return Q::kPoint;
    if (!(std::isfinite(stats[0]) && std::isfinite(stats[2]) && std::isfinite(stats[3]))) return Q::kNothing;
    q_.from_stats(task_.draft, draft, task_.vocab, stats);
    qx_ = std::exp(stats[3] / stats[0] - stats[2]);
    return Q::kRow;
  }

  int32_t recover(Q kind, int64_t token, double u) const {
    switch (kind) {
      case Q::kPoint:
        return static_cast<int32_t>(p_.draw_without(token, u));
      case Q::kRow:
        return static_cast<int32_t>(p_.draw_residual(q_, u));
      default:
        return static_cast<int32_t>(p_.draw(u));
    }
  }

  const VerifyTask& task_;
  Distribution p_, q_;
  double qx_ = 0;
};

}  // namespace

Outcome verify_token(const VerifyTask& task) {
  std::vector<int64_t> first_draft(task.num_requests + 1, 0);
  for (int64_t b = 0; b < task.num_requests; ++b) first_draft[b + 1] = first_draft[b] + task.counts[b];
  const int64_t rows = 2 * first_draft[task.num_requests] + task.num_requests;
  std::vector<Outcome> outcomes(task.num_requests);
  parallel_for(task.num_requests, rows * task.vocab, task.max_threads, [&] {
    return [&, walker = Walker(task)](int64_t b) mutable { outcomes[b] = walker.run(b, first_draft[b]); };
  });
  for (const Outcome& outcome : outcomes) {
    if (outcome.fault != kNone) return outcome;
  }
  return {};
}

}  // namespace specdec
