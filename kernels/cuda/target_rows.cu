// One team per target row. Token rule (Leviathan et al., arXiv 2211.17192, algorithm 1), definition in
// specdec/verify/reference.py: accept x where u q(x) < p(x), otherwise draw from normalise(max(p - q, 0)); draw the
// bonus token from p. Each row decides for itself, at once, as if all drafts before it had been accepted; finish.cu
// picks what counts. Block rule: rows leave their distribution behind for block.cu.
//
// A row skips its draw where an earlier row of its request is known to have rejected. The result is the same, for
// finish.cu does not look at it; draft rows are read for one rejection per request, or hardly more.
#include "cuda/draft.cuh"
#include "cuda/launch.cuh"
#include "cuda/prepare.cuh"

namespace specdec::cuda {
namespace {

// Bit j of `rejected`: row j has rejected its draft; the last bit stands for all further rows.
SPECDEC_DEVICE uint32_t rejection_bit(int64_t j) { return 1u << (j < 31 ? j : 31); }
SPECDEC_DEVICE bool rejected_before(Team& team, const uint32_t* rejected, int64_t j) {
  // One thread looks, so that the team goes one way.
  return team.any(team.is_leader() && (read_now(rejected) & (rejection_bit(j) - 1)) != 0);
}

template <typename E>
SPECDEC_DEVICE double probability_of(const VerifyTask& task, const Prepared& target, int64_t row, int64_t token) {
  if (target.greedy) return token == target.argmax ? 1 : 0;
  return target.p.probability(logit_at<E>(task.target, row, token, target.p.repair));
}

SPECDEC_DEVICE void emit(const VerifyTask& task, int64_t request, int64_t j, int64_t token) {
  if (token >= 0 && lane_index() == 0) task.tokens[request * task.width + j] = static_cast<int32_t>(token);
}

// What one thread says of a row: whether its draft is accepted, and how likely that was.
SPECDEC_DEVICE void decide(const VerifyTask& task, const Scratch& scratch, const RequestRows& rows, int64_t j,
                           const DraftToken& draft, double p, bool accepts) {
  const int64_t i = rows.first_draft() + j;
  scratch.accepts[i] = accepts;
  task.probability[i] = static_cast<float>(clipped_ratio(p, draft.probability));
  if (accepts) {
    task.tokens[rows.request * task.width + j] = static_cast<int32_t>(draft.token);
  } else {
    atomic_or(scratch.rejected + rows.request, rejection_bit(j));
  }
}

template <typename E>
SPECDEC_KERNEL(kThreads, 2)
target_rows(const VerifyTask task, const Scratch scratch, bool by_block, int tiles, bool cached) {
  const Workspace space(tiles, cached);
  Team team(space.control);
  const int64_t r = block_index() / team.size();
  const RequestRows rows(task, task.row_request[r]);
  const int64_t b = rows.request, j = r - rows.first_row;
  Row<E> row(task.target, r, task.vocab, team, space.cache);
  Prepared target = prepare(team, row, space, task.sampling, b);
  if (target.p.repair != kWhole && team.is_leader()) {
    atomic_min(reinterpret_cast<uint32_t*>(task.bad_row + b), static_cast<uint32_t>(r));  // -1 is the largest
  }
  const bool block = by_block && goes_by_block(task, scratch, rows);
  const uint32_t* rejected = scratch.rejected + b;
  if (j == rows.drafts) {
    if (by_block && team.is_leader()) scratch.by_block[b] = block;
    if (!rejected_before(team, rejected, j)) {
      emit(task, b, j, draw_token(team, row, space, target, uniform(task.sampling, b, j, kBonus)));
    }
    team.leave();
    return;
  }
  const int64_t i = rows.first_draft() + j;
  const DraftToken draft = load_draft(task, scratch, i, b);
  target.p.at_token = draft.kind == kNothing ? 0 : probability_of<E>(task, target, r, draft.token);
  bool recovers = false;
  if (block) {
    if (team.is_leader()) {
      scratch.target[r] = target.p;
      scratch.drawn[i] = draft.probability;
    }
  } else {
    const bool accepts = uniform(task.sampling, b, j, kAccept) * draft.probability < target.p.at_token;
    if (team.is_leader()) decide(task, scratch, rows, j, draft, target.p.at_token, accepts);
    recovers = !accepts && !rejected_before(team, rejected, j);
  }
  double alpha = target.p.at_token;
  if (recovers && target.greedy) {
    emit(task, b, j, greedy_token(team, target));
  } else if (recovers || (task.alpha != nullptr && draft.kind == kRow)) {
    const Residual residual =
        sum_residual(team, row, space.tile_max, space.tile_sum, WeighResidual{task, target.p, draft, 1});
    if (draft.kind == kRow) alpha = 1 - residual.mass;  // sum of min(p, q) = 1 - sum of max(p - q, 0)
    if (recovers) {
      const double u = uniform(task.sampling, b, j, kRecover);
      emit(task, b, j, draw(team, row, space.tile_sum, residual.total, u, residual.weigh));
    }
  }
  if (task.alpha != nullptr && team.is_leader()) task.alpha[i] = static_cast<float>(alpha);
  team.leave();
}

}  // namespace

const char* launch_target_rows(const VerifyTask& task, const Scratch& scratch, bool by_block, Stream stream) {
  const int64_t rows = task.requests + task.drafts;
  return with_type(task.target.dtype, [&](auto element) {
    typedef decltype(element) E;
    const Plan plan(rows, task.vocab, sizeof(typename E::Raw));
    return launch(target_rows<E>, rows, plan, stream, task, scratch, by_block, plan.tiles, plan.cached);
  });
}

}  // namespace specdec::cuda
