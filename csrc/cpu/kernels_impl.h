// Included once per instruction set, with SPECDEC_LANES (float64 lanes in a register) and SPECDEC_TABLE defined.
//
// Written with the compiler's vector types: the same source becomes AVX-512, AVX2 or scalar code by the flags of the
// including file. Everything here has internal linkage and no library templates are used: an inline function compiled
// with AVX-512 flags must never be the copy that the linker keeps for the baseline files.
#pragma once

#include "cpu/kernels.h"

namespace specdec {
namespace {

constexpr int W = SPECDEC_LANES;
typedef double vf64 __attribute__((vector_size(8 * W)));
typedef int64_t vi64 __attribute__((vector_size(8 * W)));
typedef float vf32 __attribute__((vector_size(4 * W)));
typedef int32_t vi32 __attribute__((vector_size(4 * W)));
typedef uint32_t vu32 __attribute__((vector_size(4 * W)));
typedef uint16_t vu16 __attribute__((vector_size(2 * W)));

struct BFloat16 {
  typedef uint16_t Storage;
  static constexpr uint16_t kMinusInf = 0xff80;
  static vf32 load(const uint16_t* p) {
    vu16 half;
    __builtin_memcpy(&half, p, sizeof half);
    return (vf32)(__builtin_convertvector(half, vu32) << 16);
  }
};

struct Float16 {
  typedef uint16_t Storage;
  static constexpr uint16_t kMinusInf = 0xfc00;
  static vf32 load(const uint16_t* p) {
    vu16 half;
    __builtin_memcpy(&half, p, sizeof half);
    const vu32 bits = __builtin_convertvector(half, vu32);
    const vu32 magnitude = (bits & 0x7fff) << 13;
    // Multiplying by 2^112 moves the exponent bias from 15 to 127 and is exact for normal and subnormal values alike.
    const vu32 finite = (vu32)((vf32)magnitude * 0x1p112f);
    const vu32 special = magnitude | 0x7f800000;
    const vu32 is_special = (vu32)((bits & 0x7c00) == 0x7c00);
    return (vf32)((finite & ~is_special) | (special & is_special) | ((bits & 0x8000) << 16));
  }
};

struct Float32 {
  typedef float Storage;
  static constexpr float kMinusInf = -__builtin_huge_valf();
  static vf32 load(const float* p) {
    vf32 x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
};

// Calls f(i, count, values) for values = T[i .. i + count) of a block; lanes behind the end hold -inf.
template <typename T, typename F>
inline void for_each_vector(const typename T::Storage* p, int n, F f) {
  int i = 0;
  for (; i + W <= n; i += W) f(i, W, T::load(p + i));
  if (i < n) {
    typename T::Storage tail[W];
    for (int k = 0; k < W; ++k) tail[k] = i + k < n ? p[i + k] : T::kMinusInf;
    f(i, n - i, T::load(tail));
  }
}

inline double lane_sum(vf64 x) {
  double sum = 0;
  for (int k = 0; k < W; ++k) sum += x[k];
  return sum;
}

// exp(x) for x in [-708, 700], relative error below 4e-16: x = n ln2 + r with |r| <= ln2 / 2, a Taylor polynomial of
// degree 12 in r, and n added to the exponent bits. Adding 1.5 * 2^52 leaves n in the low bits of the sum.
inline vf64 exp_in_range(vf64 x) {
  const double magic = 0x1.8p52;
  const vf64 shifted = x * 1.4426950408889634 + magic;
  const vf64 n = shifted - magic;
  const vf64 r = (x - n * 0x1.62e42fefa0000p-1) - n * 0x1.cf79abc9e3b3ap-40;
  vf64 y = r * (1.0 / 479001600) + 1.0 / 39916800;
  y = y * r + 1.0 / 3628800;
  y = y * r + 1.0 / 362880;
  y = y * r + 1.0 / 40320;
  y = y * r + 1.0 / 5040;
  y = y * r + 1.0 / 720;
  y = y * r + 1.0 / 120;
  y = y * r + 1.0 / 24;
  y = y * r + 1.0 / 6;
  y = y * r + 0.5;
  y = y * r + 1.0;
  y = y * r + 1.0;
  return (vf64)((vi64)y + ((vi64)shifted << 52));
}

template <typename T>
double exp_block(const void* row, int64_t begin, int n, double inv_t, double shift, double threshold, double* out) {
  vf64 sum = {};
  for_each_vector<T>(static_cast<const typename T::Storage*>(row) + begin, n, [&](int i, int count, vf32 raw) {
    const vf64 logit = __builtin_convertvector(raw, vf64);
    const vf64 x = (logit - shift) * inv_t;
    // Comparisons are false for NaN, so a NaN weighs nothing; below exp(-708) nothing is left either.
    const vi64 keep = (logit >= threshold) & (x >= -708.0);
    const vf64 high = (vf64)((vi64)x & keep);  // dropped lanes compute exp(0), then vanish
    const vi64 below_cap = high < 700.0;
    const vf64 capped = (vf64)(((vi64)high & below_cap) | ((vi64)((vf64){} + 700.0) & ~below_cap));
    const vf64 w = (vf64)((vi64)exp_in_range(capped) & keep);
    sum += w;
    __builtin_memcpy(out + i, &w, sizeof(double) * count);
  });
  return lane_sum(sum);
}

template <typename T>
void widen(const void* row, int64_t begin, int n, float* out) {
  for_each_vector<T>(static_cast<const typename T::Storage*>(row) + begin, n,
                     [&](int i, int count, vf32 x) { __builtin_memcpy(out + i, &x, sizeof(float) * count); });
}

template <typename T>
RowScan scan(const void* row, int64_t vocab) {
  RowScan found = {-__builtin_huge_valf(), 0, false};
  int64_t best_block = 0;
  vi32 nan = {};
  for (int64_t begin = 0; begin < vocab; begin += kBlock) {
    const int n = vocab - begin < kBlock ? static_cast<int>(vocab - begin) : kBlock;
    vf32 max = (vf32){} - __builtin_huge_valf();
    for_each_vector<T>(static_cast<const typename T::Storage*>(row) + begin, n, [&](int, int, vf32 x) {
      const vi32 greater = x > max;
      max = (vf32)(((vi32)x & greater) | ((vi32)max & ~greater));
      nan |= x != x;
    });
    for (int k = 0; k < W; ++k) {
      if (max[k] > found.max) {
        found.max = max[k];
        best_block = begin;
      }
    }
  }
  float block[kBlock];
  const int n = vocab - best_block < kBlock ? static_cast<int>(vocab - best_block) : kBlock;
  widen<T>(row, best_block, n, block);
  int i = 0;
  while (i + 1 < n && !(block[i] == found.max)) ++i;
  found.argmax = best_block + i;
  for (int k = 0; k < W; ++k) found.bad |= nan[k] != 0;
  found.bad |= found.max == __builtin_huge_valf() || found.max == -__builtin_huge_valf();
  return found;
}

double residual_block(const double* p, const double* q, int n, double p_scale, double q_scale, double* out) {
  vf64 sums = {};
  int i = 0;
  for (; i + W <= n; i += W) {
    vf64 a, b;
    __builtin_memcpy(&a, p + i, sizeof a);
    __builtin_memcpy(&b, q + i, sizeof b);
    const vf64 d = a * p_scale - b * q_scale;
    const vf64 kept = (vf64)((vi64)d & (vi64)(d > 0.0));
    sums += kept;
    __builtin_memcpy(out + i, &kept, sizeof kept);
  }
  double sum = lane_sum(sums);
  for (; i < n; ++i) {
    const double d = p[i] * p_scale - q[i] * q_scale;
    out[i] = d > 0 ? d : 0;
    sum += out[i];
  }
  return sum;
}

double min_block(const double* p, const double* q, int n, double p_scale, double q_scale) {
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    const double a = p[i] * p_scale, b = q[i] * q_scale;
    sum += a < b ? a : b;
  }
  return sum;
}

}  // namespace

const Kernels SPECDEC_TABLE = {SPECDEC_NAME,
                               {{scan<BFloat16>, exp_block<BFloat16>, widen<BFloat16>},
                                {scan<Float16>, exp_block<Float16>, widen<Float16>},
                                {scan<Float32>, exp_block<Float32>, widen<Float32>}},
                               residual_block,
                               min_block};

}  // namespace specdec
