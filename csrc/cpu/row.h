// One row of logits and what one pass over it found: its extremes, and the largest logit of each block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cpu/kernels.h"

namespace specdec {

struct Row {
  const RowKernels* kernels;
  const void* data;
  int64_t vocab;
  float max;
  const float* block_max;       // [num_blocks()]
  double inv_t = 1, shift = 0;  // a token's weight is exp((logit - shift) * inv_t)

  int64_t num_blocks() const { return (vocab + kBlock - 1) / kBlock; }
  int size_of(int64_t block) const { return static_cast<int>(std::min<int64_t>(kBlock, vocab - block * kBlock)); }

  double exp_block(int64_t block, float from, double* out) const {
    return kernels->exp_block(data, block * kBlock, size_of(block), inv_t, shift, from, out);
  }
  double exp_sum(int64_t block, float from) const {
    return kernels->exp_sum(data, block * kBlock, size_of(block), inv_t, shift, from);
  }
  int collect(int64_t block, float from, float* logits, int32_t* ids) const {
    return kernels->collect(data, block * kBlock, size_of(block), from, logits, ids);
  }
};

// The lowest float that is not below x: a logit, which is a float, is at or above x just where it is at or above this.
inline float float_from(double x) {
  const float nearest = static_cast<float>(x);
  return static_cast<double>(nearest) < x ? std::nextafter(nearest, std::numeric_limits<float>::infinity()) : nearest;
}

}  // namespace specdec
