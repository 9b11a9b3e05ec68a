// The inner loops that exist once per instruction set, reached through a table of plain functions.
//
// Rows are walked in blocks of kBlock tokens. Weights are float64 throughout, so that every instruction set and the
// PyTorch reference agree on a draw up to float64 rounding.
#pragma once

#include <cstdint>

namespace specdec {

constexpr int kBlock = 512;

enum DType : int { kBFloat16 = 0, kFloat16 = 1, kFloat32 = 2 };

struct RowScan {
  float max;
  int64_t argmax;  // the lowest id that holds the maximum
  bool bad;        // a NaN, a +inf, or nothing but -inf
};

struct RowKernels {
  // block_max[i]: the largest logit of block i; may be null.
  RowScan (*scan)(const void* row, int64_t vocab, float* block_max);
  // out[i] = exp((l - shift) * inv_t) where l >= threshold, else 0, for l = row[begin + i], i < n <= kBlock.
  // Returns the sum of out, which must have room for kBlock numbers.
  double (*exp_block)(const void* row, int64_t begin, int n, double inv_t, double shift, float threshold, double* out);
  double (*exp_sum)(const void* row, int64_t begin, int n, double inv_t, double shift, float threshold);
  // The logits >= floor of row[begin .. begin + n) and their ids, in order; returns their number.
  int (*collect)(const void* row, int64_t begin, int n, float floor, float* logits, int32_t* ids);
  void (*widen)(const void* row, int64_t begin, int n, float* out);
};

struct Kernels {
  const char* name;
  RowKernels rows[3];  // by DType
  // out[i] = max(p[i] * p_scale - q[i] * q_scale, 0). Returns the sum.
  double (*residual_block)(const double* p, const double* q, int n, double p_scale, double q_scale, double* out);
  // Sum of min(p[i] * p_scale, q[i] * q_scale).
  double (*min_block)(const double* p, const double* q, int n, double p_scale, double q_scale);
};

extern const Kernels kScalarKernels;
#ifdef SPECDEC_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

// dispatch.cpp: the table in use, and the choice among "auto", "scalar", "avx2", "avx512".
const Kernels& kernels();
void select_isa(const char* name);

}  // namespace specdec
