// The q of draft rows that come to a verify step without statistics, found anew from the request's own sampling
// parameters. One team per target row, of which those of bonus rows have nothing to do.
#include "cuda/draft.cuh"
#include "cuda/launch.cuh"
#include "cuda/prepare.cuh"

namespace specdec::cuda {
namespace {

template <typename E>
SPECDEC_KERNEL(kThreads, 2)
draft_rows(const VerifyTask task, const Scratch scratch, int tiles, bool cached) {
  const Workspace space(tiles, cached);
  Team team(space.control);
  const int64_t r = block_index() / team.size();
  const RequestRows rows(task, task.row_request[r]);
  const int64_t draft = r - rows.request;
  if (r - rows.first_row == rows.drafts || !has_row(task, draft, rows.request)) return;
  const int64_t at = draft_row(task, draft);
  Row<E> row(task.draft, at, task.vocab, team, space.cache);
  Prepared q = prepare(team, row, space, task.sampling, rows.request);
  q.p.at_token = q.p.probability(logit_at<E>(task.draft, at, token_of(task, draft), kWhole));
  if (q.p.repair != kWhole) q.p.scale = 0;
  if (team.is_leader()) scratch.draft[draft] = q.p;
  team.leave();
}

}  // namespace

const char* launch_draft_rows(const VerifyTask& task, const Scratch& scratch, Stream stream) {
  const int64_t rows = task.requests + task.drafts;
  return with_type(task.draft.dtype, [&](auto element) {
    typedef decltype(element) E;
    const Plan plan(rows, task.vocab, sizeof(typename E::Raw));
    return launch(draft_rows<E>, rows, plan, stream, task, scratch, plan.tiles, plan.cached);
  });
}

}  // namespace specdec::cuda
