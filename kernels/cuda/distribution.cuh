// A filtered row as a distribution: p(v) = exp((l(v) - shift) / T) * scale where l(v) >= from, else 0.
#pragma once

#include "cpu/philox.h"
#include "cuda/element.cuh"

namespace specdec::cuda {

enum Repair : int32_t {
  kWhole = 0,   // the row is as it should be
  kFinite = 1,  // it held NaN or +inf: its finite entries alone
  kEmpty = 2    // it has no finite entry: token 0, with logit 0, in their place
};

struct Distribution {
  double shift, inv_t, scale;
  double at_token;  // the probability of the draft token at this row
  float from;
  int32_t repair;

  SPECDEC_DEVICE double weight(float l) const {
    return l >= from ? exp((static_cast<double>(l) - shift) * inv_t) : 0.0;
  }
  SPECDEC_DEVICE double probability(float l) const { return weight(l) * scale; }
};

SPECDEC_DEVICE bool is_finite(double x) { return x - x == 0; }

SPECDEC_DEVICE float repaired(float l, int64_t id, int32_t repair) {
  if (repair == kEmpty && id == 0) return 0;
  return l < kInf && l > -kInf ? l : -kInf;
}

// The logit of one token.
template <typename E>
SPECDEC_DEVICE float logit_at(const Matrix& matrix, int64_t row, int64_t id, int32_t repair) {
  const float l = E::widen(row_of<E>(matrix, row)[id]);
  return repair == kWhole ? l : repaired(l, id, repair);
}

// min(1, p / q); for q = 0, which no draft from q has, 1 or with p = 0 too 0.
SPECDEC_DEVICE double clipped_ratio(double p, double q) { return p < q ? p / q : (p > 0 ? 1 : 0); }

SPECDEC_DEVICE bool is_greedy(const SamplingView& sampling, int64_t request) {
  return sampling.temperature[request] < kGreedyBelow;
}

// The request's number for the token at `offset` from its position.
SPECDEC_DEVICE double uniform(const SamplingView& sampling, int64_t request, int64_t offset, int64_t purpose) {
  return philox_uniform(sampling.seed[request], sampling.position[request] + offset, static_cast<Purpose>(purpose));
}

}  // namespace specdec::cuda
