// A row with its filters: all that is needed to ask it for probabilities and to draw from it.
#pragma once

#include "cuda/draw.cuh"
#include "cuda/threshold.cuh"

namespace specdec::cuda {

struct Prepared {
  Distribution p;
  double threshold;  // in raw logits; greedy: the maximum
  double total;      // sum of the weights; space.tile_sum has it by tiles
  int64_t argmax;    // greedy rows only
  float max;
  bool greedy;
};

struct WeighTokens {
  const Distribution& p;
  SPECDEC_DEVICE void operator()(const float (&x)[kOctet], int64_t, double (&w)[kOctet]) const {
    for (int k = 0; k < kOctet; ++k) w[k] = p.weight(x[k]);
  }
};

template <typename E>
SPECDEC_DEVICE Prepared prepare(Team& team, Row<E>& row, const Workspace& space, const SamplingView& sampling,
                                int64_t request) {
  const Survey seen = survey(team, row, space.tile_max);
  Prepared out = {{seen.max, 1, 1, 0, seen.max, seen.repair}, seen.max, 1, 0, seen.max, is_greedy(sampling, request)};
  if (out.greedy) {
    out.argmax = argmax(team, row, space.tile_max, seen.max);
    return out;
  }
  const Filters filters(sampling, request);
  out.p.inv_t = filters.inv_t;
  const auto mass_from = [&](float from) {
    out.p.from = from;
    return sum_tiles(team, row, space.tile_max, from, space.tile_sum, WeighTokens{out.p});
  };
  ThresholdSearch<E> search(team, row, space, seen, filters);
  out.threshold = search.find(mass_from);
  out.total = mass_from(float_from(out.threshold));
  out.p.scale = 1 / out.total;
  return out;
}

// The token from p: in the lanes of one warp of the team, elsewhere -1.
SPECDEC_DEVICE int64_t greedy_token(const Team& team, const Prepared& prepared) {
  return team.rank() == 0 && warp_index() == 0 ? prepared.argmax : -1;
}
template <typename E>
SPECDEC_DEVICE int64_t draw_token(const Team& team, const Row<E>& row, const Workspace& space, const Prepared& prepared,
                                  double u) {
  if (prepared.greedy) return greedy_token(team, prepared);
  return draw(team, row, space.tile_sum, prepared.total, u, WeighTokens{prepared.p});
}

}  // namespace specdec::cuda
