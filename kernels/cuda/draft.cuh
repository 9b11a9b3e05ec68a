// What is known of a draft token's q: nothing (the id is no token, or the row no distribution), a point mass, or a row.
#pragma once

#include "cuda/draw.cuh"
#include "cuda/scratch.cuh"

namespace specdec::cuda {

enum DraftKind : int32_t { kNothing, kPoint, kRow };

struct DraftToken {
  int64_t token;
  DraftKind kind;
  double probability;  // q(token); 0 for kNothing
  int64_t row;         // of task.draft
  Distribution q;      // for kRow
};

SPECDEC_DEVICE int64_t token_of(const VerifyTask& task, int64_t draft) {
  return task.token_ids_are_int64 ? static_cast<const int64_t*>(task.token_ids)[draft]
                                  : static_cast<const int32_t*>(task.token_ids)[draft];
}

SPECDEC_DEVICE int64_t draft_row(const VerifyTask& task, int64_t draft) {
  const int64_t row = task.draft_rows == nullptr ? draft : task.draft_rows[draft];
  return row < task.num_draft_rows ? row : -1;  // the host cannot look: an index from nowhere means one-hot
}

// Whether q is a row, as far as request and id tell.
SPECDEC_DEVICE bool has_row(const VerifyTask& task, int64_t draft, int64_t request) {
  const int64_t token = token_of(task, draft);
  return task.draft.data != nullptr && token >= 0 && token < task.vocab && draft_row(task, draft) >= 0 &&
         !is_greedy(task.sampling, request);
}

SPECDEC_DEVICE DraftToken load_draft(const VerifyTask& task, const Scratch& scratch, int64_t draft, int64_t request) {
  DraftToken out = {token_of(task, draft), kNothing, 0, -1, {}};
  if (out.token < 0 || out.token >= task.vocab) return out;
  const DraftToken point = {out.token, kPoint, 1, -1, {}};
  if (!has_row(task, draft, request)) return point;
  out.row = draft_row(task, draft);
  if (task.draft_stats == nullptr) {
    out.q = scratch.draft[draft];
    out.probability = out.q.at_token;
    out.kind = out.q.scale > 0 ? kRow : kNothing;
    return out;
  }
  const double* stats = task.draft_stats + 4 * out.row;
  const double temperature = stats[0], threshold = stats[1], log_sum_exp = stats[2], logit = stats[3];
  if (temperature == 0) return point;
  if (!is_finite(temperature) || !is_finite(log_sum_exp) || !is_finite(logit)) return out;
  out.kind = kRow;
  out.probability = exp(logit / temperature - log_sum_exp);
  // exp(l / T - lse) = exp((l - lse T) / T)
  out.q = {log_sum_exp * temperature, 1 / temperature, 1, out.probability, float_from(threshold), kWhole};
  return out;
}

// The request goes by the block rule: two drafts or more, each a sample of its row.
SPECDEC_DEVICE bool goes_by_block(const VerifyTask& task, const Scratch& scratch, const RequestRows& rows) {
  if (rows.drafts < 2) return false;
  for (int64_t j = 0; j < rows.drafts; ++j) {
    if (load_draft(task, scratch, rows.first_draft() + j, rows.request).kind != kRow) return false;
  }
  return true;
}

// max(w p - q, 0), from which a token is recovered.
struct WeighResidual {
  const VerifyTask& task;
  const Distribution& p;
  DraftToken draft;
  double w;

  SPECDEC_DEVICE void operator()(const float (&x)[kOctet], int64_t id, double (&out)[kOctet]) const {
    bool any = false;
    for (int k = 0; k < kOctet; ++k) {
      out[k] = w * p.probability(x[k]);
      any |= out[k] > 0;
    }
    if (!any || draft.kind == kNothing) return;  // where p is 0 the draft's row is not read
    if (draft.kind == kPoint) {
      for (int k = 0; k < kOctet; ++k) out[k] = id + k == draft.token ? 0 : out[k];
      return;
    }
    float y[kOctet];
    read_octet(task.draft, draft.row, task.vocab, id, y);
    for (int k = 0; k < kOctet; ++k) {
      const double rest = out[k] - draft.q.probability(y[k]);
      out[k] = rest > 0 ? rest : 0;
    }
  }
};

// What sum_residual has found: the sum of max(w p - q, 0), and what a token is recovered from, with its sum. That is p
// where the residual has no mass.
struct Residual {
  double mass;
  WeighResidual weigh;
  double total;
};

template <typename E>
SPECDEC_DEVICE Residual sum_residual(Team& team, const Row<E>& row, const float* tile_max, double* tile_sum,
                                     const WeighResidual& weigh) {
  Residual out = {-1, weigh, 0};
  for (;;) {  // most often once
    out.total = sum_tiles(team, row, tile_max, weigh.p.from, tile_sum, out.weigh);
    if (out.mass < 0) out.mass = out.total;
    if (out.total > 0 || out.weigh.draft.kind == kNothing) return out;
    out.weigh.draft.kind = kNothing;
    out.weigh.w = 1;
  }
}

}  // namespace specdec::cuda
