#include "cpu/verify.h"

#include <cmath>

namespace specdec {

std::atomic<OpenMPParallel> openmp_parallel{nullptr};

void DraftToken::load(const VerifyTask& task, const Request& request, int32_t i) {
  const int64_t draft = request.first_draft + i;
  token = task.tokens_are_int64 ? static_cast<const int64_t*>(task.tokens)[draft]
                                : static_cast<const int32_t*>(task.tokens)[draft];
  kind = Q::kNothing;
  probability = 0;
  if (token < 0 || token >= task.vocab) return;
  const int64_t row = task.draft_rows == nullptr ? draft : task.draft_rows[draft];
  const double* stats = task.stats == nullptr || row < 0 ? nullptr : task.stats + 4 * row;
  if (task.draft.data == nullptr || row < 0 || task.sampling.temperature[request.index] < kGreedyBelow ||
      (stats != nullptr && stats[0] == 0)) {
    kind = Q::kPoint;
    probability = 1;
  } else if (stats == nullptr) {
    if (!q.prepare(task.draft, row, task.vocab, task.sampling, request.index)) return;
    kind = Q::kRow;
    probability = q.probability(token);
  } else if (std::isfinite(stats[0]) && std::isfinite(stats[2]) && std::isfinite(stats[3])) {
    q.from_stats(task.draft, row, task.vocab, stats);
    kind = Q::kRow;
    probability = std::exp(stats[3] / stats[0] - stats[2]);
  }
}

double DraftToken::overlap(const Distribution& p) const {
  if (kind == Q::kRow) return p.overlap(q);
  return kind == Q::kPoint ? p.probability(token) : 0;
}

}  // namespace specdec
