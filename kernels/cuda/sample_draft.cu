// Draws a draft token from each row and states its q by four numbers (specdec/verify/types.py, Draft). One team per
// row.
#include "cuda/launch.cuh"
#include "cuda/prepare.cuh"

namespace specdec::cuda {
namespace {

template <typename E>
SPECDEC_KERNEL(kThreads, 2)
sample_draft(const SampleTask task, int tiles, bool cached) {
  const Workspace space(tiles, cached);
  Team team(space.control);
  const int64_t b = block_index() / team.size();
  Row<E> row(task.logits, b, task.vocab, team, space.cache);
  Prepared q = prepare(team, row, space, task.sampling, b);
  if (q.p.repair != kWhole && !q.greedy) {  // a point mass
    q.greedy = true;
    q.argmax = argmax(team, row, space.tile_max, q.max);
  }
  // Each draft of a step has a purpose of its own (specdec/verify/reference.py says why).
  const double u = uniform(task.sampling, b, 0, draft_purpose(task.step));
  const int64_t token = draw_token(team, row, space, q, u);
  if (token >= 0 && lane_index() == 0) {
    const double temperature = task.sampling.temperature[b];
    task.tokens[b] = static_cast<int32_t>(token);
    task.is_bad[b] = q.p.repair != kWhole;
    double* stats = task.stats + 4 * b;
    stats[0] = q.greedy ? 0 : temperature;
    stats[1] = q.greedy ? q.max : q.threshold;
    stats[2] = q.greedy ? 0 : q.max / temperature + log(q.total);
    stats[3] = logit_at<E>(task.logits, b, token, q.p.repair);
  }
  team.leave();
}

}  // namespace

const char* launch_sample_draft(const SampleTask& task, Stream stream) {
  return with_type(task.logits.dtype, [&](auto element) {
    typedef decltype(element) E;
    const Plan plan(task.requests, task.vocab, sizeof(typename E::Raw));
    return launch(sample_draft<E>, task.requests, plan, stream, task, plan.tiles, plan.cached);
  });
}

}  // namespace specdec::cuda
