// Draws one draft token per row and keeps the four numbers that state its distribution q exactly.
#include <cmath>

#include "cpu/api.h"
#include "cpu/parallel.h"
#include "cpu/philox.h"

namespace specdec {

Fault check_sampling(const SamplingView& s, int64_t b) {
  // Written so that NaN fails each test.
  if (!(s.temperature[b] >= 0 && std::isfinite(s.temperature[b]))) return kBadTemperature;
  if (!(s.top_p[b] > 0 && s.top_p[b] <= 1)) return kBadTopP;
  if (!(s.min_p[b] >= 0 && s.min_p[b] <= 1)) return kBadMinP;
  return kNone;
}

Outcome sample_draft(const SampleTask& task) {
  const SamplingView& s = task.sampling;
  std::vector<Fault> faults(task.num_requests, kNone);
  parallel_for(task.num_requests, task.num_requests * task.vocab, task.max_threads, [&] {
    return [&, q = Distribution()](int64_t b) mutable {
      faults[b] = check_sampling(s, b);
      if (faults[b] != kNone) return;
      if (!q.prepare(task.logits, b, task.vocab, s, b)) {
        faults[b] = kBadRow;
        return;
      }
      const int64_t token = q.draw(philox_uniform(s.seed[b], s.position[b], draft_purpose(task.step)));
      task.out_tokens[b] = static_cast<int32_t>(token);
      double* stats = task.out_stats + 4 * b;
      stats[0] = q.greedy() ? 0 : s.temperature[b];
      stats[1] = q.threshold();
      stats[2] = q.greedy() ? 0 : q.log_sum_exp();
      stats[3] = q.logit(token);
    };
  });
  for (int64_t b = 0; b < task.num_requests; ++b) {
    if (faults[b] != kNone) return {faults[b], b, b};
  }
  return {};
}

}  // namespace specdec
