// Included once per instruction set, with SPECDEC_LANES (float64 lanes in a register) and SPECDEC_TABLE defined.
//
// Written with the compiler's vector types: the same source becomes AVX-512, AVX2 or scalar code by the flags of the
// including file. Everything here has internal linkage and no library templates are used: an inline function compiled
// with AVX-512 flags must never be the copy that the linker keeps for the baseline files.
#pragma once

#if SPECDEC_LANES > 2
#include <immintrin.h>
#endif

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
  typedef int16_t Key;
  static constexpr uint16_t kMinusInf = 0xff80;
  typedef uint16_t UnsignedKey;
  static constexpr Key kInf = 0x7f80;
  static vf32 load(const uint16_t* p) {
    vu16 half;
    __builtin_memcpy(&half, p, sizeof half);
    return (vf32)(__builtin_convertvector(half, vu32) << 16);
  }
};

struct Float16 {
  typedef uint16_t Storage;
  typedef int16_t Key;
  static constexpr uint16_t kMinusInf = 0xfc00;
  typedef uint16_t UnsignedKey;
  static constexpr Key kInf = 0x7c00;
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
  typedef int32_t Key;
  static constexpr float kMinusInf = -__builtin_huge_valf();
  typedef uint32_t UnsignedKey;
  static constexpr Key kInf = 0x7f800000;
  static vf32 load(const float* p) {
    vf32 x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
};

// Calls f(i, values) for the values from i on of a block, W at a time; lanes behind the end hold -inf.
template <typename T, typename F>
inline __attribute__((always_inline)) void for_each_vector(const typename T::Storage* p, int n, F f) {
  int i = 0;
  for (; i + W <= n; i += W) f(i, T::load(p + i));
  if (i < n) {
    typename T::Storage tail[W];
    for (int k = 0; k < W; ++k) tail[k] = i + k < n ? p[i + k] : T::kMinusInf;
    f(i, T::load(tail));
  }
}

// One bit for each lane in which the comparison's result is true.
inline unsigned mask_of(vi32 x) {
#if SPECDEC_LANES == 8
  return static_cast<unsigned>(_mm256_movemask_ps((__m256)x));
#elif SPECDEC_LANES == 4
  return static_cast<unsigned>(_mm_movemask_ps((__m128)x));
#else
  unsigned mask = 0;
  for (int k = 0; k < W; ++k) mask |= (x[k] != 0) << k;
  return mask;
#endif
}

template <typename V>
inline V larger(V a, V b) {
  return a > b ? a : b;
}

inline double lane_sum(vf64 x) {
  double sum = 0;
  for (int k = 0; k < W; ++k) sum += x[k];
  return sum;
}

// exp(x) = 2^(n / kSteps + f / kSteps), n an integer and |f| <= 1/2: the power of two comes from a table and the
// exponent bits, the rest from a Taylor polynomial. Relative error below 1e-15. Adding 1.5 * 2^52 leaves n in the low
// bits.
#if SPECDEC_LANES == 8
constexpr int kStepBits = 4;  // a table of two registers, looked up by one instruction; degree 6
inline vf64 step(vi64 n) {
  const vf64 low = {1.0,
                    0x1.0b5586cf9890fp+0,
                    0x1.172b83c7d517bp+0,
                    0x1.2387a6e756238p+0,
                    0x1.306fe0a31b715p+0,
                    0x1.3dea64c123422p+0,
                    0x1.4bfdad5362a27p+0,
                    0x1.5ab07dd485429p+0};
  const vf64 high = {0x1.6a09e667f3bcdp+0, 0x1.7a11473eb0187p+0, 0x1.8ace5422aa0dbp+0, 0x1.9c49182a3f090p+0,
                     0x1.ae89f995ad3adp+0, 0x1.c199bdd85529cp+0, 0x1.d5818dcfba487p+0, 0x1.ea4afa2a490dap+0};
  return __builtin_shuffle(low, high, n);
}
inline vf64 power(vf64 f) {  // 2^(f / 16)
  vf64 y = f * 9.181219573844438e-12 + 1.2715871950558131e-09;
  y = y * f + 1.467610032291943e-07;
  y = y * f + 1.3550807779497457e-05;
  y = y * f + 0.0009383847928089872;
  y = y * f + 0.04332169878499658;
  return y * f + 1.0;
}
#else
constexpr int kStepBits = 0;
inline vf64 step(vi64) { return (vf64){} + 1.0; }
inline vf64 power(vf64 f) {  // 2^f = exp(r), degree 12
  const vf64 r = f * 0.6931471805599453;
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
  return y * r + 1.0;
}
#endif
constexpr double kSteps = 1 << kStepBits;
constexpr double kStepsPerUnit = kSteps * 1.4426950408889634;  // of the exponent

// The lanes of `keep` of exp((x - shift) * inv_t), the others 0; steps = inv_t * kStepsPerUnit.
inline vf64 weights_of(vf32 x, vi32 keep, double steps, double shift) {
  const vf64 y = (__builtin_convertvector(x, vf64) - shift) * steps;
  // Comparisons are false for NaN, so a NaN weighs nothing; below exp(-708) nothing is left either.
  const vi64 kept = __builtin_convertvector(keep, vi64) & (y >= -708.0 * kStepsPerUnit);
  const vf64 capped = y < 700.0 * kStepsPerUnit ? y : (vf64){} + 700.0 * kStepsPerUnit;
  const double magic = 0x1.8p52;
  const vf64 shifted = capped + magic;
  const vi64 n = (vi64)shifted;
  const vf64 w = power(capped - (shifted - magic)) * step(n);
  return (vf64)(((vi64)w + ((n >> kStepBits) << 52)) & kept);
}

// `out` has room for kBlock numbers, whatever n is.
template <typename T>
double exp_block(const void* row, int64_t begin, int n, double inv_t, double shift, float threshold, double* out) {
  const double steps = inv_t * kStepsPerUnit;
  vf64 sum = {};
  for_each_vector<T>(static_cast<const typename T::Storage*>(row) + begin, n, [&](int i, vf32 x) {
    const vi32 keep = x >= threshold;
    vf64 w = {};
    if (mask_of(keep)) w = weights_of(x, keep, steps, shift);  // of a filtered row hardly any vector keeps a token
    sum += w;
    __builtin_memcpy(out + i, &w, sizeof w);
  });
  return lane_sum(sum);
}

template <typename T>
double exp_sum(const void* row, int64_t begin, int n, double inv_t, double shift, float threshold) {
  const double steps = inv_t * kStepsPerUnit;
  vf64 sum = {};
  for_each_vector<T>(static_cast<const typename T::Storage*>(row) + begin, n, [&](int, vf32 x) {
    const vi32 keep = x >= threshold;
    if (mask_of(keep)) sum += weights_of(x, keep, steps, shift);
  });
  return lane_sum(sum);
}

template <typename T>
int collect(const void* row, int64_t begin, int n, float floor, float* logits, int32_t* ids) {
  int count = 0;
  for_each_vector<T>(static_cast<const typename T::Storage*>(row) + begin, n, [&](int i, vf32 x) {
    unsigned mask = mask_of(x >= floor);
    if (i + W > n) mask &= (1u << (n - i)) - 1;  // a floor of -inf takes the lanes behind the end for tokens
    for (; mask; mask &= mask - 1) {
      const int lane = __builtin_ctz(mask);
      logits[count] = x[lane];
      ids[count++] = static_cast<int32_t>(begin) + i + lane;
    }
  });
  return count;
}

template <typename T>
void widen(const void* row, int64_t begin, int n, float* out) {
  const typename T::Storage* p = static_cast<const typename T::Storage*>(row) + begin;
  int i = 0;
  for (; i + W <= n; i += W) {
    const vf32 x = T::load(p + i);
    __builtin_memcpy(out + i, &x, sizeof x);
  }
  for (; i < n; ++i) {
    typename T::Storage one[W] = {p[i]};
    out[i] = T::load(one)[0];
  }
}

// Half a register, down to eight bytes.
template <typename Key, int kBytes>
struct Lanes {
  typedef Key Vector __attribute__((vector_size(kBytes)));
  static Key largest(Vector v) {
    typename Lanes<Key, kBytes / 2>::Vector low, high;
    __builtin_memcpy(&low, &v, kBytes / 2);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + kBytes / 2, kBytes / 2);
    return Lanes<Key, kBytes / 2>::largest(larger(low, high));
  }
};

template <typename Key>
struct Lanes<Key, 8> {
  typedef Key Vector __attribute__((vector_size(8)));
  static Key largest(Vector v) {
    Key most = v[0];
    for (unsigned k = 1; k < 8 / sizeof(Key); ++k) most = v[k] > most ? v[k] : most;
    return most;
  }
};

// The bits of logits, taken as integers. Those of positive numbers are ordered as the numbers are; those of negative
// ones are below them, and ordered the other way. NaN lies beyond the infinity of its sign.
template <typename T>
struct BlockBits {
  typedef typename T::Key Key;
  typedef typename T::UnsignedKey UnsignedKey;
  typedef Key Vector __attribute__((vector_size(8 * W)));
  typedef UnsignedKey UnsignedVector __attribute__((vector_size(8 * W)));
  static constexpr int kLanes = static_cast<int>(8 * W / sizeof(Key));
  static constexpr Key kSign = static_cast<Key>(UnsignedKey(1) << (8 * sizeof(Key) - 1));
  static constexpr Key kMinusInf = static_cast<Key>(T::kInf | kSign);

  Vector most = Vector{} + kMinusInf;   // the largest positive number, if there is one
  Vector least = Vector{} + kMinusInf;  // otherwise the largest negative one
  UnsignedVector beyond = {};           // over UnsignedKey(kMinusInf): a NaN with a minus sign

  void add(const typename T::Storage* p) {
    Vector bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    most = larger(most, bits);
    least = least < bits ? least : bits;
    beyond = larger(beyond, (UnsignedVector)bits);
  }
  // The bits of the largest number, negative ones with all bits but the sign inverted: then integers have its order.
  Key key() const { return Lanes<Key, 8 * W>::largest(most >= 0 ? most : least ^ static_cast<Key>(~kSign)); }
};

template <typename T>
float to_float(typename T::Key key) {
  typedef BlockBits<T> Bits;
  const typename T::Key bits =
      key >= 0 ? key : static_cast<typename T::Key>(key ^ static_cast<typename T::Key>(~Bits::kSign));
  typename T::Storage one[W] = {};
  __builtin_memcpy(one, &bits, sizeof bits);
  return T::load(one)[0];
}

template <typename T>
RowScan scan(const void* row, int64_t vocab, float* block_max) {
  typedef BlockBits<T> Bits;
  typedef typename Bits::Key Key;
  const typename T::Storage* p = static_cast<const typename T::Storage*>(row);
  typename Bits::UnsignedVector beyond = {};
  RowScan found = {-__builtin_huge_valf(), 0, false};
  int64_t best_block = 0;
  for (int64_t begin = 0; begin < vocab; begin += kBlock) {
    const int n = vocab - begin < kBlock ? static_cast<int>(vocab - begin) : kBlock;
    Bits block;
    int i = 0;
    for (; i + Bits::kLanes <= n; i += Bits::kLanes) block.add(p + begin + i);
    if (i < n) {
      typename T::Storage tail[Bits::kLanes];
      for (int k = 0; k < Bits::kLanes; ++k) tail[k] = i + k < n ? p[begin + i + k] : T::kMinusInf;
      block.add(tail);
    }
    beyond = larger(beyond, block.beyond);
    const Key key = block.key();
    found.bad |= key >= T::kInf;
    const float max = to_float<T>(key);
    if (block_max) block_max[begin / kBlock] = max;
    if (max > found.max) {  // as floats: -0 equals +0
      found.max = max;
      best_block = begin;
    }
  }
  for (int k = 0; k < Bits::kLanes; ++k) {
    found.bad |= beyond[k] > static_cast<typename T::UnsignedKey>(Bits::kMinusInf);
  }
  found.bad |= found.max == -__builtin_huge_valf();
  float block[kBlock];
  const int n = vocab - best_block < kBlock ? static_cast<int>(vocab - best_block) : kBlock;
  widen<T>(row, best_block, n, block);
  int i = 0;
  while (i + 1 < n && !(block[i] == found.max)) ++i;
  found.argmax = best_block + i;
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

const Kernels SPECDEC_TABLE = {
    SPECDEC_NAME,
    {{scan<BFloat16>, exp_block<BFloat16>, exp_sum<BFloat16>, collect<BFloat16>, widen<BFloat16>},
     {scan<Float16>, exp_block<Float16>, exp_sum<Float16>, collect<Float16>, widen<Float16>},
     {scan<Float32>, exp_block<Float32>, exp_sum<Float32>, collect<Float32>, widen<Float32>}},
    residual_block,
    min_block};

}  // namespace specdec
