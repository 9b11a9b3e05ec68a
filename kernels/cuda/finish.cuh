// The token rule's last word: the drafts before the first one rejected are accepted; what stands behind is taken back.
#pragma once

#include "cuda/scratch.cuh"

namespace specdec::cuda {

// tau drafts are accepted.
SPECDEC_DEVICE void settle(const VerifyTask& task, const RequestRows& rows, int64_t tau) {
  task.accepted[rows.request] = static_cast<int32_t>(tau);
  for (int64_t j = tau + 1; j <= rows.drafts; ++j) {
    task.tokens[rows.request * task.width + j] = -1;
    if (j < rows.drafts) task.probability[rows.first_draft() + j] = float_of(0x7fc00000u);
  }
}

SPECDEC_DEVICE void finish_by_token(const VerifyTask& task, const Scratch& scratch, const RequestRows& rows) {
  int64_t tau = 0;
  while (tau < rows.drafts && scratch.accepts[rows.first_draft() + tau]) ++tau;
  settle(task, rows, tau);
}

}  // namespace specdec::cuda
