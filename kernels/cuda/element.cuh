// Logits as they are stored, eight at a time, and as keys: unsigned numbers in the logits' order.
//
// The bits of a float, with the sign flipped if it is positive and all bits flipped if it is negative, are ordered as
// the floats are. What a 16-bit type widens to leaves the lowest bits of a float zero; a key goes without them.
#pragma once

#include <cstring>

#include "cuda/api.h"
#include "cuda/device.cuh"

namespace specdec::cuda {

constexpr int kOctet = 8;  // elements in one step of a lane: one vector of 16 bytes, two for float32

struct BFloat16 {
  typedef uint16_t Raw;
  static constexpr int kUnusedBits = 16;
  static constexpr Raw kMinusInf = 0xff80;
  static SPECDEC_DEVICE float widen(Raw x) { return float_of(static_cast<uint32_t>(x) << 16); }
};

struct Float16 {
  typedef uint16_t Raw;
  static constexpr int kUnusedBits = 13;
  static constexpr Raw kMinusInf = 0xfc00;
  static SPECDEC_DEVICE float widen(Raw x) { return float_of_half(x); }
};

struct Float32 {
  typedef uint32_t Raw;
  static constexpr int kUnusedBits = 0;
  static constexpr Raw kMinusInf = 0xff800000u;
  static SPECDEC_DEVICE float widen(Raw x) { return float_of(x); }
};

template <typename E>
struct alignas(16) Octet {
  typename E::Raw raw[kOctet];
};

constexpr uint32_t kPositive = 0x80000000u;

SPECDEC_DEVICE uint32_t ordered(float x) {
  const uint32_t bits = bits_of(x + 0.0f);  // + 0: -0 becomes +0, to which it is equal
  return bits & kPositive ? ~bits : bits | kPositive;
}

template <typename E>
SPECDEC_DEVICE uint32_t key_of(float x) {
  return ordered(x) >> E::kUnusedBits;
}

template <typename E>
SPECDEC_DEVICE float logit_of(uint32_t key) {
  const uint32_t bits = key << E::kUnusedBits;
  if (bits & kPositive) return float_of(bits & ~kPositive);
  return float_of(~(bits | ((1u << E::kUnusedBits) - 1)));
}

// The lowest key of a logit that is not below x, which need not be a logit of type E.
template <typename E>
SPECDEC_DEVICE uint32_t key_from(float x) {
  const uint32_t exact = ordered(x);
  const uint32_t up = exact & kPositive ? (1u << E::kUnusedBits) - 1 : 0;
  return (exact + up) >> E::kUnusedBits;
}

// The lowest float that is not below x: a logit, which is a float, is at or above x just where it is at or above this.
SPECDEC_DEVICE float float_from(double x) {
  const float nearest = static_cast<float>(x);
  if (!(static_cast<double>(nearest) < x)) return nearest;
  const uint32_t next = ordered(nearest) + 1;
  return next & kPositive ? float_of(next & ~kPositive) : float_of(~next);
}

// row[id .. id + 8); -inf outside of [0, vocab).
template <typename E>
SPECDEC_DEVICE Octet<E> load_octet(const typename E::Raw* row, int64_t vocab, int64_t id) {
  Octet<E> out;
  const typename E::Raw* at = row + id;
  if (id >= 0 && id + kOctet <= vocab && reinterpret_cast<uintptr_t>(at) % 16 == 0) {
    constexpr int kVectors = sizeof out / 16;
    for (int i = 0; i < kVectors; ++i) {
      const Bits128 vector = load_128(at + i * kOctet / kVectors);
      memcpy(out.raw + i * kOctet / kVectors, &vector, sizeof vector);
    }
  } else {
    for (int i = 0; i < kOctet; ++i) out.raw[i] = id + i >= 0 && id + i < vocab ? at[i] : E::kMinusInf;
  }
  return out;
}

template <typename E>
SPECDEC_DEVICE const typename E::Raw* row_of(const Matrix& matrix, int64_t row) {
  return static_cast<const typename E::Raw*>(matrix.data) + row * matrix.stride;
}

template <typename E>
SPECDEC_DEVICE void widen_octet(const Octet<E>& octet, float (&x)[kOctet]) {
  for (int i = 0; i < kOctet; ++i) x[i] = E::widen(octet.raw[i]);
}

// The same of a matrix whose type is known only when the kernel runs.
SPECDEC_DEVICE void read_octet(const Matrix& matrix, int64_t row, int64_t vocab, int64_t id, float (&x)[kOctet]) {
  if (matrix.dtype == kBFloat16) {
    widen_octet<BFloat16>(load_octet<BFloat16>(row_of<BFloat16>(matrix, row), vocab, id), x);
  } else if (matrix.dtype == kFloat16) {
    widen_octet<Float16>(load_octet<Float16>(row_of<Float16>(matrix, row), vocab, id), x);
  } else {
    widen_octet<Float32>(load_octet<Float32>(row_of<Float32>(matrix, row), vocab, id), x);
  }
}

}  // namespace specdec::cuda
