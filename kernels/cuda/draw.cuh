// Sums of weights, and the inverse of the cumulative distribution in token-id order: all in float64.
//
// `weigh(x, id, w)` says the weights w[0 .. 8) of the tokens from `id` on, whose logits are x. A tile's sum stays in
// shared memory, so that a draw looks at the tokens of one tile alone.
#pragma once

#include "cuda/row.cuh"

namespace specdec::cuda {

SPECDEC_DEVICE double sum_of(const double (&w)[kOctet]) {
  double sum = 0;
  for (int k = 0; k < kOctet; ++k) sum += w[k];
  return sum;
}

// The sum over the row. Tiles whose maximum lies under `from` weigh nothing; tile_max null: all tiles are looked at.
template <typename E, typename Weigh>
SPECDEC_DEVICE double sum_tiles(Team& team, const Row<E>& row, const float* tile_max, float from, double* tile_sum,
                                const Weigh& weigh) {
  for_each_tile(row, [&](int tile) {
    double sum = 0;
    if (tile_max == nullptr || tile_max[tile] >= from) {
      for_each_octet(row, tile, [&](const float (&x)[kOctet], int64_t id) {
        double w[kOctet];
        weigh(x, id, w);
        sum += sum_of(w);
      });
      sum = warp_sum(sum);
    }
    if (lane_index() == 0) tile_sum[tile] = sum;
  });
  block_sync();
  double sum = 0;
  if (warp_index() == 0) {
    for (int tile = lane_index(); tile < row.tiles(); tile += 32) sum += tile_sum[tile];
    sum = warp_sum(sum);
  }
  return team.sum_of_blocks(sum);
}

// A place in the cumulative sum: the part that holds `target`, and the weight of all before it. Where `target` was
// rounded up to the whole, the last part that weighs anything.
struct Place {
  int32_t part;  // -1: nothing weighs anything
  double before;
};

// Among the parts of one warp, lane by lane. `last` is the last part with weight of the lanes looked at so far.
SPECDEC_DEVICE bool locate(double w, int32_t part, double target, double& before, Place& last) {
  const double through = before + warp_scan(w);
  const unsigned weighty = ballot(w > 0);
  const unsigned hits = ballot(w > 0 && through > target);
  if (weighty) {
    const int lane = hits ? lowest_bit(hits) : highest_bit(weighty);
    const double before_lane = shuffle(through, lane > 0 ? lane - 1 : 0);
    last = {shuffle(part, lane), lane > 0 ? before_lane : before};
  }
  before = shuffle(through, 31);
  return hits != 0;
}

// For one warp: the token of a tile at which the cumulative weight passes `target`.
template <typename E, typename Weigh>
SPECDEC_DEVICE int64_t draw_in_tile(const Row<E>& row, int tile, double before, double target, const Weigh& weigh) {
  Place place = {-1, before};
  for (int i = 0; i < kOctetsPerLane; ++i) {
    const int octet = i * 32 + lane_index();
    float x[kOctet];
    double w[kOctet];
    row.read(tile, octet, x);
    weigh(x, row.id_of(tile, octet), w);
    if (locate(sum_of(w), octet, target, before, place)) break;
  }
  if (place.part < 0) return 0;
  float x[kOctet];
  double w[kOctet];
  row.read(tile, place.part, x);
  const int64_t id = row.id_of(tile, place.part);
  weigh(x, id, w);
  int64_t drawn = 0;
  for (int k = 0; k < kOctet; ++k) {
    if (!(w[k] > 0)) continue;
    drawn = id + k;
    place.before += w[k];
    if (place.before > target) break;
  }
  return drawn;
}

// After sum_tiles, which returned `total`, with the same weights. All lanes of one warp of the team get the token, all
// other threads -1. Where no token weighs anything: 0.
template <typename E, typename Weigh>
SPECDEC_DEVICE int64_t draw(const Team& team, const Row<E>& row, const double* tile_sum, double total, double u,
                            const Weigh& weigh) {
  const double target = u * total;
  double before = 0, before_owner = 0;
  int owner = -1;
  for (int r = 0; r < team.size(); ++r) {
    const double mass = team.block_mass(r);
    if (!(mass > 0)) continue;
    owner = r;
    before_owner = before;
    before += mass;
    if (before > target) break;
  }
  if (warp_index() != 0 || team.rank() != (owner < 0 ? 0 : owner)) return -1;
  Place place = {-1, before_owner};
  before = before_owner;
  for (int first = 0; first < row.tiles(); first += 32) {
    const int tile = first + lane_index();
    if (locate(tile < row.tiles() ? tile_sum[tile] : 0.0, tile, target, before, place)) break;
  }
  return place.part < 0 ? 0 : draw_in_tile(row, place.part, place.before, target, weigh);
}

}  // namespace specdec::cuda
