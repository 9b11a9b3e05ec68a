// What kernels that follow one another leave for the next, and the shape of a request.
#pragma once

#include "cuda/distribution.cuh"

namespace specdec::cuda {

struct Scratch {
  Distribution* target;  // [N + B] block rule
  Distribution* draft;   // [N] where rows come without statistics; scale 0: the row is no distribution
  double* mass;          // [N] block rule: S_i of specdec/verify/block.py for draft row i > 0
  double* reach;         // [N + B] block rule: T_i
  int32_t* accepts;      // [N] token rule: u q(x) < p(x)
  uint32_t* rejected;    // [B] token rule: which rows have rejected their draft (rejection_bit); zero at first
};

struct RequestRows {
  int64_t request, first_row, drafts;

  SPECDEC_DEVICE RequestRows(const VerifyTask& task, int64_t request)
      : request(request), first_row(task.first_row[request]), drafts(task.first_row[request + 1] - first_row - 1) {}
  SPECDEC_DEVICE int64_t first_draft() const { return first_row - request; }
};

}  // namespace specdec::cuda
