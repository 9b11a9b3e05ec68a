// Block verification (Sun et al., arXiv 2403.10444, algorithm 2), one request at a time; the formulas and names are
// those of specdec/verify/block.py, the definition with its exceptions is in specdec/verify/reference.py.
//
// Every draft row but the first is read whole, once, for its residual mass. The block sums of that pass are kept, so
// that the recovered token costs one more block of 512 logits; the first row is read only where it recovers a token.
#include "cpu/verify.h"

namespace specdec {
namespace {

constexpr double kRounding = 1e-9;  // ROUNDING of block.py: below it h is 0 / 0, and 1

class BlockRule {
 public:
  explicit BlockRule(const VerifyTask& task) : task_(task), token_rule_(task) {}

  Outcome run(const Request& r) {
    const int32_t n = r.num_drafts;
    if (n < 2 || !load_drafts(r)) return token_rule_.run(r);
    reserve(n);
    for (int32_t i = 0; i < n; ++i) {
      const double w = weight_[i];
      if (w == 0 && r.expected == nullptr) {  // no longer reached: only looked at, as in the token rule
        if (is_bad_row(task_.target, r.first_row + i, task_.vocab)) return r.bad_row(i);
        weight_[i + 1] = 0;
        continue;
      }
      if (!prepare(r, i)) return r.bad_row(i);
      if (r.expected) r.expected[i] = static_cast<float>(drafts_[i].overlap(p_[i]));
      mass_[i] = i > 0 && w > 0 ? p_[i].residual(drafts_[i].q, w, residual_[i]) : 0;
      weight_[i + 1] = clipped_ratio(w * p_[i].probability(drafts_[i].token), drafts_[i].probability);
    }
    const int32_t tau = accepted(n, r.uniform(0, kAccept));
    for (int32_t i = 0; i < tau; ++i) r.tokens[i] = static_cast<int32_t>(drafts_[i].token);
    for (int32_t i = 0; i < n && i <= tau; ++i) r.accept_probs[i] = static_cast<float>(reach_[i + 1] / reach_[i]);
    if (tau == n) {
      if (!prepare(r, n)) return r.bad_row(n);
      r.tokens[n] = static_cast<int32_t>(p_[n].draw(r.uniform(n, kBonus)));
    } else {
      if (is_bad_row(task_.target, r.first_row + n, task_.vocab)) return r.bad_row(n);
      r.tokens[tau] = static_cast<int32_t>(recover(tau, r.uniform(tau, kRecover)));
    }
    *r.accepted = tau;
    return {};
  }

 private:
  // False where a draft is not a sample of its row.
  bool load_drafts(const Request& r) {
    if (static_cast<int32_t>(drafts_.size()) < r.num_drafts) drafts_.resize(r.num_drafts);
    for (int32_t i = 0; i < r.num_drafts; ++i) {
      drafts_[i].load(task_, r, i);
      if (drafts_[i].kind != Q::kRow) return false;
    }
    return true;
  }

  void reserve(int32_t n) {
    if (static_cast<int32_t>(p_.size()) < n + 1) p_.resize(n + 1);
    if (static_cast<int32_t>(residual_.size()) < n) residual_.resize(n);
    weight_.assign(n + 1, 1);
    mass_.assign(n, 0);
    reach_.assign(n + 1, 1);
  }

  bool prepare(const Request& r, int32_t i) {
    return p_[i].prepare(task_.target, r.first_row + i, task_.vocab, task_.sampling, r.index);
  }

  // Fills reach_ and returns tau.
  int32_t accepted(int32_t n, double u) {
    reach_[n] = weight_[n];
    for (int32_t i = n - 1; i > 0; --i) {
      const double denominator = mass_[i] + (1 - weight_[i]);
      const double h = denominator > kRounding ? mass_[i] / denominator : 1;
      reach_[i] = reach_[i + 1] + h * (1 - reach_[i + 1]);
    }
    int32_t tau = n;
    while (tau > 0 && !(u < reach_[tau])) --tau;
    return tau;
  }

  int64_t recover(int32_t tau, double u) {
    const Distribution& q = drafts_[tau].q;
    if (tau == 0) p_[0].residual(q, 1, residual_[0]);
    return p_[tau].draw_residual(q, weight_[tau], residual_[tau], u);
  }

  const VerifyTask& task_;
  TokenRule token_rule_;
  std::vector<DraftToken> drafts_;  // grown, never shrunk: a walk allocates only for the longest request so far
  std::vector<Distribution> p_;
  std::vector<std::vector<double>> residual_;  // block sums of max(w_i P_i - Q_i, 0)
  std::vector<double> weight_, mass_, reach_;  // w, S, T
};

}  // namespace

Outcome verify_block(const VerifyTask& task) { return verify_requests<BlockRule>(task); }

}  // namespace specdec
