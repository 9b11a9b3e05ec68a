// Block verification (Sun et al., arXiv 2403.10444, algorithm 2), after target_rows.cu. With the names of
// specdec/verify/block.py:
//
//   w_i = min(1, w_{i-1} P_{i-1}(x_i) / Q_{i-1}(x_i)), w_0 = 1      S_i = sum of max(w_i P_i - Q_i, 0)
//   h_i = S_i / (S_i + 1 - w_i), h_n = w_n                          T_i = T_{i+1} + h_i (1 - T_{i+1})
//
// block_masses finds w_i and S_i, one team per target row; finish_block finds tau = the largest i with u < T_i, and
// recovers a token from normalise(max(w_tau P_tau - Q_tau, 0)), one team per request. Both read target rows once more:
// at the batch sizes of serving they still lie in the L2 cache.
#include "cuda/draft.cuh"
#include "cuda/finish.cuh"
#include "cuda/launch.cuh"

namespace specdec::cuda {
namespace {

constexpr double kRounding = 1e-9;  // ROUNDING of block.py: below it h is 0 / 0, and 1

// w_i. Each row multiplies up its own, from numbers that target_rows has left side by side.
SPECDEC_DEVICE double weight_of(const Scratch& scratch, const RequestRows& rows, int64_t i) {
  double w = 1;
  for (int64_t k = 0; k < i; ++k) {
    w = clipped_ratio(w * scratch.target[rows.first_row + k].at_token, scratch.drawn[rows.first_draft() + k]);
  }
  return w;
}

template <typename E>
SPECDEC_KERNEL(kThreads, 2)
block_masses(const VerifyTask task, const Scratch scratch, int tiles) {
  const Workspace space(tiles, false);
  Team team(space.control);
  const int64_t r = block_index() / team.size();
  const RequestRows rows(task, task.row_request[r]);
  if (!scratch.by_block[rows.request]) return;
  const int64_t i = r - rows.first_row;
  const double w = weight_of(scratch, rows, i);
  if (team.is_leader()) scratch.weight[r] = w;
  if (i == 0 || i == rows.drafts) return;
  double mass = 0;
  if (w > 0) {
    const Distribution p = scratch.target[r];
    const DraftToken draft = load_draft(task, scratch, rows.first_draft() + i, rows.request);
    Row<E> row(task.target, r, task.vocab, team, nullptr);
    row.set_repair(p.repair);
    mass = sum_tiles(team, row, nullptr, p.from, space.tile_sum, WeighResidual{task, p, draft, w});
  }
  if (team.is_leader()) scratch.mass[rows.first_draft() + i] = mass;
  team.leave();
}

// For one thread: fills reach and the probabilities of acceptance, and returns tau.
SPECDEC_DEVICE int64_t accepted_by_block(const VerifyTask& task, const Scratch& scratch, const RequestRows& rows) {
  const int64_t n = rows.drafts;
  const double* weight = scratch.weight + rows.first_row;
  double* reach = scratch.reach + rows.first_row;
  reach[n] = weight[n];
  for (int64_t i = n - 1; i > 0; --i) {
    const double mass = scratch.mass[rows.first_draft() + i];
    const double denominator = mass + (1 - weight[i]);
    const double h = denominator > kRounding ? mass / denominator : 1;
    reach[i] = reach[i + 1] + h * (1 - reach[i + 1]);
  }
  reach[0] = 1;
  const double u = uniform(task.sampling, rows.request, 0, kAccept);
  int64_t tau = n;
  while (tau > 0 && !(u < reach[tau])) --tau;
  for (int64_t i = 0; i < n && i <= tau; ++i) {
    task.probability[rows.first_draft() + i] = static_cast<float>(reach[i + 1] / reach[i]);
  }
  return tau;
}

template <typename E>
SPECDEC_KERNEL(kThreads, 2)
finish_block(const VerifyTask task, const Scratch scratch, int tiles) {
  const Workspace space(tiles, false);
  Team team(space.control);
  const int64_t b = block_index() / team.size();
  const RequestRows rows(task, b);
  if (!scratch.by_block[b]) {
    if (team.is_leader()) finish_by_token(task, scratch, rows);
    return;
  }
  Count found = 0;
  if (team.is_leader()) {
    const int64_t tau = accepted_by_block(task, scratch, rows);
    for (int64_t i = 0; i < tau; ++i) {
      task.tokens[b * task.width + i] = static_cast<int32_t>(token_of(task, rows.first_draft() + i));
    }
    settle(task, rows, tau);
    found = static_cast<Count>(tau);
  }
  const int64_t tau = static_cast<int64_t>(team.most(found));
  if (tau < rows.drafts) {
    const int64_t r = rows.first_row + tau;
    const Distribution p = scratch.target[r];
    const DraftToken draft = load_draft(task, scratch, rows.first_draft() + tau, b);
    Row<E> row(task.target, r, task.vocab, team, nullptr);
    row.set_repair(p.repair);
    const Residual residual =
        sum_residual(team, row, nullptr, space.tile_sum, WeighResidual{task, p, draft, scratch.weight[r]});
    const double u = uniform(task.sampling, b, tau, kRecover);
    const int64_t token = draw(team, row, space.tile_sum, residual.total, u, residual.weigh);
    if (token >= 0 && lane_index() == 0) task.tokens[b * task.width + tau] = static_cast<int32_t>(token);
  }
  team.leave();
}

}  // namespace

const char* launch_block_masses(const VerifyTask& task, const Scratch& scratch, Stream stream) {
  const int64_t rows = task.requests + task.drafts;
  const Plan plan(rows, task.vocab, 0, false);
  return with_type(task.target.dtype, [&](auto element) {
    return launch(block_masses<decltype(element)>, rows, plan, stream, task, scratch, plan.tiles);
  });
}

const char* launch_finish_block(const VerifyTask& task, const Scratch& scratch, Stream stream) {
  const Plan plan(task.requests, task.vocab, 0, false);
  return with_type(task.target.dtype, [&](auto element) {
    return launch(finish_block<decltype(element)>, task.requests, plan, stream, task, scratch, plan.tiles);
  });
}

}  // namespace specdec::cuda
