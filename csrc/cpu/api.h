// The operations of the cpu backend, on raw pointers. Python (specdec/verify/cpu.py) has checked shapes and types.
#pragma once

#include <cstdint>

#include "cpu/distribution.h"

namespace specdec {

enum Fault : int { kNone = 0, kBadRow = 1, kBadTemperature = 2, kBadTopP = 3, kBadMinP = 4 };

struct Outcome {  // the first request (by number) that cannot be served, and which of its target rows
  Fault fault = kNone;
  int64_t request = -1;
  int64_t row = -1;
};

struct VerifyTask {
  int64_t num_requests, vocab;
  Rows target;            // [N + B, vocab]
  const int32_t* counts;  // [B] drafts per request
  const void* tokens;     // [N]
  bool tokens_are_int64;
  Rows draft;                 // [any, vocab]; data null for one-hot drafts
  const double* stats;        // a row's four numbers, or null
  const int64_t* draft_rows;  // [N] each draft's row in draft and stats, -1 for none; null: the identity
  SamplingView sampling;
  int32_t* out_tokens;  // [B, out_width], padded with -1
  int64_t out_width;
  int32_t* out_accepted;    // [B]
  float* out_expected;      // [N] or null
  float* out_accept_probs;  // [N]
  int max_threads;
};

struct SampleTask {
  int64_t num_requests, vocab, step;
  Rows logits;  // [B, vocab]
  SamplingView sampling;
  int32_t* out_tokens;  // [B]
  double* out_stats;    // [B, 4]
  int max_threads;
};

Fault check_sampling(const SamplingView& sampling, int64_t request);
Outcome verify_token(const VerifyTask& task);
Outcome verify_block(const VerifyTask& task);
Outcome sample_draft(const SampleTask& task);

}  // namespace specdec
