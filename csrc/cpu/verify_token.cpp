// Token verification (Leviathan et al., arXiv 2211.17192, algorithm 1), one request at a time:
//   accept draft token x where u q(x) < p(x); on the first rejection draw from normalise(max(p - q, 0)) and stop;
//   after the last acceptance draw the bonus token from p. Definition: specdec/verify/reference.py.
#include "cpu/verify.h"

namespace specdec {

Outcome TokenRule::run(const Request& r) {
  const int32_t n = r.num_drafts;
  int32_t accepted = 0;
  bool alive = true;
  for (int32_t j = 0; j < n; ++j) {
    const int64_t row = r.first_row + j;
    if (!alive && r.expected == nullptr) {  // only looked at, so that an error does not depend on the draws
      if (is_bad_row(task_.target, row, task_.vocab)) return r.bad_row(j);
      continue;
    }
    if (!p_.prepare(task_.target, row, task_.vocab, task_.sampling, r.index)) return r.bad_row(j);
    draft_.load(task_, r, j);
    if (r.expected) r.expected[j] = static_cast<float>(draft_.overlap(p_));
    if (!alive) continue;
    const double px = draft_.kind == Q::kNothing ? 0 : p_.probability(draft_.token);
    r.accept_probs[j] = static_cast<float>(clipped_ratio(px, draft_.probability));
    if (r.uniform(j, kAccept) * draft_.probability < px) {
      r.tokens[accepted++] = static_cast<int32_t>(draft_.token);
    } else {
      alive = false;
      r.tokens[accepted] = static_cast<int32_t>(recover(r.uniform(j, kRecover)));
    }
  }
  if (alive) {
    if (!p_.prepare(task_.target, r.first_row + n, task_.vocab, task_.sampling, r.index)) return r.bad_row(n);
    r.tokens[accepted] = static_cast<int32_t>(p_.draw(r.uniform(n, kBonus)));
  } else if (is_bad_row(task_.target, r.first_row + n, task_.vocab)) {
    return r.bad_row(n);
  }
  *r.accepted = accepted;
  return {};
}

int64_t TokenRule::recover(double u) {
  switch (draft_.kind) {
    case Q::kPoint:
      return p_.draw_without(draft_.token, u);
    case Q::kRow:
      p_.residual(draft_.q, 1, residual_);
      return p_.draw_residual(draft_.q, 1, residual_, u);
    default:
      return p_.draw(u);
  }
}

Outcome verify_token(const VerifyTask& task) { return verify_requests<TokenRule>(task); }

}  // namespace specdec
