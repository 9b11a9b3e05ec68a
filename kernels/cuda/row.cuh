// One row of logits, cut into tiles of 1024 that a warp walks at a time. A team's blocks hold adjacent slices of tiles,
// in the order of the token ids; lane i of a warp has the octets i, i + 32, i + 64 and i + 96 of a tile.
//
// Tile 0 begins at an address that 16 divides, up to 7 elements before the row: what lies outside of the row is read as
// -inf. Where a slice fits into shared memory it is copied there by the first pass, and the row's one read from memory
// serves the maxima, the threshold search, the sums and the draw.
#pragma once

#include "cuda/distribution.cuh"
#include "cuda/team.cuh"

namespace specdec::cuda {

constexpr int kTile = 1024;
constexpr int kOctetsPerLane = kTile / kOctet / 32;

// Addresses in shared memory of what belongs to a block's slice of `tiles` tiles at most (Plan counts the bytes).
struct Workspace {
  Control* control;
  double* tile_sum;
  float* tile_max;
  uint32_t* list;
  char* cache;  // null: rows do not fit

  SPECDEC_DEVICE Workspace(int tiles, bool cached) {
    char* at = shared_memory();
    control = take<Control>(at, 1);
    tile_sum = take<double>(at, tiles);
    list = take<uint32_t>(at, kListCapacity);
    tile_max = take<float>(at, tiles);
    cache = cached ? at : nullptr;
  }

 private:
  template <typename T>
  static SPECDEC_DEVICE T* take(char*& at, int count) {
    T* here = reinterpret_cast<T*>(at);
    at += (count * sizeof(T) + 15) / 16 * 16;
    return here;
  }
};

template <typename E>
class Row {
 public:
  SPECDEC_DEVICE Row(const Matrix& matrix, int64_t row, int64_t vocab, const Team& team, char* cache)
      : data_(row_of<E>(matrix, row)), vocab_(vocab), cache_(reinterpret_cast<Octet<E>*>(cache)) {
    head_ = static_cast<int>(reinterpret_cast<uintptr_t>(data_) % 16 / sizeof(typename E::Raw));
    const int64_t tiles = (head_ + vocab + kTile - 1) / kTile;
    const int64_t each = (tiles + team.size() - 1) / team.size();
    first_tile_ = each * team.rank();
    const int64_t left = tiles - first_tile_;
    tiles_ = static_cast<int>(left < 0 ? 0 : left < each ? left : each);
  }

  SPECDEC_DEVICE int64_t vocab() const { return vocab_; }
  SPECDEC_DEVICE int tiles() const { return tiles_; }  // of this block
  SPECDEC_DEVICE int64_t id_of(int tile, int octet) const {
    return (first_tile_ + tile) * kTile + octet * kOctet - head_;
  }

  SPECDEC_DEVICE void set_repair(int32_t repair) { repair_ = repair; }

  // From memory, into the cache if there is one. All of a lane's loads of a tile are under way at once.
  SPECDEC_DEVICE void load_tile(int tile, Octet<E> (&out)[kOctetsPerLane]) {
    for (int i = 0; i < kOctetsPerLane; ++i) {
      out[i] = load_octet<E>(data_, vocab_, id_of(tile, i * 32 + lane_index()));
    }
    if (cache_ == nullptr) return;
    for (int i = 0; i < kOctetsPerLane; ++i) cache_[place(tile, i * 32 + lane_index())] = out[i];
  }

  // Octet `octet` of a tile that load_tile has seen (by this same lane, or before a block_sync).
  SPECDEC_DEVICE void read(int tile, int octet, float (&x)[kOctet]) const {
    const int64_t id = id_of(tile, octet);
    widen_octet(cache_ ? cache_[place(tile, octet)] : load_octet<E>(data_, vocab_, id), x);
    if (repair_ == kWhole) return;
    for (int i = 0; i < kOctet; ++i) x[i] = repaired(x[i], id + i, repair_);
  }

 private:
  static SPECDEC_DEVICE int place(int tile, int octet) { return tile * (kTile / kOctet) + octet; }

  const typename E::Raw* data_;
  int64_t vocab_, first_tile_;
  int head_, tiles_;
  int32_t repair_ = kWhole;
  Octet<E>* cache_;
};

// f(tile) for the warp's share of the block's tiles.
template <typename E, typename F>
SPECDEC_DEVICE void for_each_tile(const Row<E>& row, F f) {
  for (int tile = warp_index(); tile < row.tiles(); tile += kWarps) f(tile);
}

// f(x, id) for the lane's octets of a tile, in the order of their ids.
template <typename E, typename F>
SPECDEC_DEVICE void for_each_octet(const Row<E>& row, int tile, F f) {
  for (int i = 0; i < kOctetsPerLane; ++i) {
    float x[kOctet];
    row.read(tile, i * 32 + lane_index(), x);
    f(x, row.id_of(tile, i * 32 + lane_index()));
  }
}

}  // namespace specdec::cuda
