// What kernels that follow one another leave for the next, and the shape of a request.
#pragma once

#include "cuda/distribution.cuh"

namespace specdec::cuda {

struct Scratch {
  Distribution* draft;  // [N] where rows come without statistics; scale 0: the row is no distribution
  int32_t* accepts;     // [N] token rule: u q(x) < p(x)
  uint32_t* rejected;   // [B] token rule: which rows have rejected their draft (rejection_bit); zero at first
  // Block rule, with the names of specdec/verify/block.py:
  Distribution* target;  // [N + B] P_i; at_token is P_i(x_{i+1})
  double* drawn;         // [N] Q_i(x_{i+1})
  double* weight;        // [N + B] w_i
  double* mass;          // [N] S_i, i > 0
  double* reach;         // [N + B] T_i
  int32_t* by_block;     // [B] whether the request goes by it
};

struct RequestRows {
  int64_t request, first_row, drafts;

  SPECDEC_DEVICE RequestRows(const VerifyTask& task, int64_t request)
      : request(request), first_row(task.first_row[request]), drafts(task.first_row[request + 1] - first_row - 1) {}
  SPECDEC_DEVICE int64_t first_draft() const { return first_row - request; }
};

}  // namespace specdec::cuda
