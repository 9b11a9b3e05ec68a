// The pass that reads a row from memory: its maximum, that of each tile, and whether it is a distribution at all.
#pragma once

#include "cuda/row.cuh"

namespace specdec::cuda {

struct Survey {
  float max;       // of the finite logits
  float mine;      // of those that this thread has seen; -inf if none
  int32_t repair;  // how the row is to be read (set in `row` too)
};

template <typename E>
SPECDEC_DEVICE Survey survey(Team& team, Row<E>& row, float* tile_max) {
  Survey found = {-kInf, -kInf, kWhole};
  bool broken = false;
  for_each_tile(row, [&](int tile) {
    Octet<E> octets[kOctetsPerLane];
    row.load_tile(tile, octets);
    float most = -kInf;
    for (int i = 0; i < kOctetsPerLane; ++i) {
      for (int k = 0; k < kOctet; ++k) {
        const float l = E::widen(octets[i].raw[k]);
        const bool fine = l < kInf;  // no for NaN
        broken |= !fine;
        most = fine && l > most ? l : most;
      }
    }
    found.mine = most > found.mine ? most : found.mine;
    for (int mask = 16; mask > 0; mask /= 2) {
      const float other = shuffle_xor(most, mask);
      most = other > most ? other : most;
    }
    if (lane_index() == 0) tile_max[tile] = most;
  });
  const Count key = ordered(found.mine);
  found.max = logit_of<Float32>(static_cast<uint32_t>(team.most(key)));
  if (team.any(broken)) found.repair = kFinite;
  if (found.max == -kInf) {
    found = {0, team.is_leader() ? 0.0f : -kInf, kEmpty};
    if (team.is_leader()) tile_max[0] = 0;
    block_sync();
  }
  row.set_repair(found.repair);
  return found;
}

// The lowest id whose logit is the maximum.
template <typename E>
SPECDEC_DEVICE int64_t argmax(Team& team, const Row<E>& row, const float* tile_max, float max) {
  int64_t lowest = row.vocab();
  for_each_tile(row, [&](int tile) {
    if (tile_max[tile] != max) return;
    for_each_octet(row, tile, [&](const float (&x)[kOctet], int64_t id) {
      for (int k = kOctet - 1; k >= 0; --k) {
        if (x[k] == max && id + k < lowest) lowest = id + k;
      }
    });
  });
  return row.vocab() - static_cast<int64_t>(team.most(static_cast<Count>(row.vocab() - lowest)));
}

}  // namespace specdec::cuda
