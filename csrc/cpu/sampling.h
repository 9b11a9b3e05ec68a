// The sampling parameters of a batch, for host and device code.
#pragma once

#include <cstdint>

namespace specdec {

constexpr float kGreedyBelow = 1e-5f;  // temperatures under this, as float32, mean argmax

struct SamplingView {  // arrays of one entry per request
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const float* min_p;
  const int64_t* seed;
  const int64_t* position;
};

}  // namespace specdec
