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

// The lanes of `keep` of exp((x - shift) * inv_t), the others 0.
inline vf64 weights_of(vf32 x, vi32 keep, double inv_t, double shift) {
  const vf64 scaled = (__builtin_convertvector(x, vf64) - shift) * inv_t;
  // Comparisons are false for NaN, so a NaN weighs nothing; below exp(-708) nothing is left either.
  const vi64 kept = __builtin_convertvector(keep, vi64) & (scaled >= -708.0);
  const vf64 high = (vf64)((vi64)scaled & kept);  // dropped lanes compute exp(0), then vanish
  const vf64 capped = high < 700.0 ? high : (vf64){} + 700.0;
  return (vf64)((vi64)exp_in_range(capped) & kept);
}

// `out` has room for kBlock numbers, whatever n is.
template <typename T>
double exp_block(const void* row, int64_t begin, int n, double inv_t, double shift, float threshold, double* out) {
  vf64 sum = {};
  for_each_vector<T>(static_cast<const typename T::Storage*>(row) + begin, n, [&](int i, vf32 x) {
    const vi32 keep = x >= threshold;
    vf64 w = {};
    if (mask_of(keep)) w = weights_of(x, keep, inv_t, shift);  // of a filtered row hardly any vector keeps a token
    sum += w;
    __builtin_memcpy(out + i, &w, sizeof w);
  });
  return lane_sum(sum);
}

template <typename T>
double exp_sum(const void* row, int64_t begin, int n, double inv_t, double shift, float threshold) {
  vf64 sum = {};
  for_each_vector<T>(static_cast<const typename T::Storage*>(row) + begin, n, [&](int, vf32 x) {
    const vi32 keep = x >= threshold;
    if (mask_of(keep)) sum += weights_of(x, keep, inv_t, shift);
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
