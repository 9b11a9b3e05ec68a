// The C interface of libspecdec_cuda.so. specdec/verify/cuda.py mirrors these structs field by field; it has checked
// shapes and types. All pointers are device memory, nothing waits for the device.
//
// B requests, N drafts, V tokens. Request b has the target rows first_row[b] .. first_row[b + 1] - 1, the last of them
// its bonus row, and the drafts first_row[b] - b .. first_row[b + 1] - b - 2.
#pragma once

#include <cstdint>

#include "cpu/sampling.h"

namespace specdec::cuda {

enum DType : int32_t { kBFloat16 = 0, kFloat16 = 1, kFloat32 = 2 };

struct Matrix {  // [rows, V], columns adjacent, only ever read; stride counts elements
  const void* data;
  int64_t stride;
  int64_t dtype;
};

struct VerifyTask {
  int64_t vocab, requests, drafts;
  Matrix target;                // [N + B, V]
  const int32_t* first_row;     // [B + 1]
  const int32_t* row_request;   // [N + B]
  const void* token_ids;        // [N]
  int64_t token_ids_are_int64;  // else int32
  Matrix draft;                 // [R, V]; data null: all drafts are one-hot
  const double* draft_stats;    // [R, 4], or null
  const int64_t* draft_rows;    // [N] each draft's row of `draft` and `draft_stats`, -1 for none; null: the identity
  int64_t num_draft_rows;       // R
  SamplingView sampling;        // [B] each
  int32_t* tokens;              // [B, width], filled with -1
  int64_t width;                // n_max + 1
  int32_t* accepted;            // [B]
  int32_t* bad_row;             // [B], filled with -1
  float* probability;           // [N], filled with NaN
  float* alpha;                 // [N] or null
  void* scratch;                // specdec_cuda_scratch_bytes(B, N), on an address that 16 divides
};

struct SampleTask {
  int64_t vocab, requests, step;
  Matrix logits;          // [B, V]
  SamplingView sampling;  // [B] each
  int32_t* tokens;        // [B]
  double* stats;          // [B, 4]
  int32_t* is_bad;        // [B]: 1 where the row is no distribution, else 0
};

}  // namespace specdec::cuda

// Each returns null, or what CUDA says is wrong. `stream` is a cudaStream_t of `device`.
#define SPECDEC_EXPORT __attribute__((visibility("default")))
extern "C" {
SPECDEC_EXPORT const char* specdec_cuda_verify_token(const specdec::cuda::VerifyTask* task, int32_t device,
                                                     void* stream);
SPECDEC_EXPORT const char* specdec_cuda_verify_block(const specdec::cuda::VerifyTask* task, int32_t device,
                                                     void* stream);
SPECDEC_EXPORT const char* specdec_cuda_sample_draft(const specdec::cuda::SampleTask* task, int32_t device,
                                                     void* stream);
SPECDEC_EXPORT int64_t specdec_cuda_scratch_bytes(int64_t requests, int64_t drafts);
// Null, or why `device` cannot run the kernels: its driver is too old, or there is no code for it.
SPECDEC_EXPORT const char* specdec_cuda_problem(int32_t device);
SPECDEC_EXPORT const char* specdec_cuda_architectures();  // that there is code for, as "sm_80 sm_90a compute_90"
// For tests and measurements: how many thread blocks share a row (where there are clusters; 1, 2, 4 or 8), and the most
// shared memory that each may use. 0: as suits the device.
SPECDEC_EXPORT void specdec_cuda_limit(int32_t team, int64_t shared_bytes);
}
