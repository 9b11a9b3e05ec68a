// The operations as sequences of launches.
#include "cuda/api.h"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/scratch.cuh"

namespace specdec::cuda {

Limits limits;

namespace {

// Lays out the scratch memory; with base null it counts the bytes.
struct ScratchLayout {
  Scratch scratch;
  char* zeroed;
  int64_t zeroed_bytes, bytes;

  ScratchLayout(void* base, int64_t requests, int64_t drafts) {
    char* const begin = static_cast<char*>(base);
    char* at = begin;
    scratch.draft = take<Distribution>(at, drafts);
    scratch.accepts = take<int32_t>(at, drafts);
    scratch.target = take<Distribution>(at, requests + drafts);
    scratch.drawn = take<double>(at, drafts);
    scratch.weight = take<double>(at, requests + drafts);
    scratch.mass = take<double>(at, drafts);
    scratch.reach = take<double>(at, requests + drafts);
    scratch.by_block = take<int32_t>(at, requests);
    zeroed = at;
    scratch.rejected = take<uint32_t>(at, requests);
    zeroed_bytes = at - zeroed;
    bytes = at - begin;
  }

  template <typename T>
  static T* take(char*& at, int64_t count) {
    T* here = reinterpret_cast<T*>(at);
    at += (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
    return here;
  }
};

const char* verify(const VerifyTask& task, bool by_block, int32_t device, Stream stream) {
  if (task.requests == 0) return nullptr;
  const ScratchLayout layout(task.scratch, task.requests, task.drafts);
  const Scratch& scratch = layout.scratch;
  const char* error = use_device(device);
  if (!error) error = fill_zero(layout.zeroed, layout.zeroed_bytes, stream);
  const bool find_q = task.drafts > 0 && task.draft.data != nullptr && task.draft_stats == nullptr;
  if (!error && find_q) error = launch_draft_rows(task, scratch, stream);
  if (!error) error = launch_target_rows(task, scratch, by_block, stream);
  if (error) return error;
  if (!by_block) return launch_finish_token(task, scratch, stream);
  error = launch_block_masses(task, scratch, stream);
  return error ? error : launch_finish_block(task, scratch, stream);
}

}  // namespace
}  // namespace specdec::cuda

using namespace specdec::cuda;

const char* specdec_cuda_verify_token(const VerifyTask* task, int32_t device, void* stream) {
  return verify(*task, false, device, static_cast<Stream>(stream));
}

const char* specdec_cuda_verify_block(const VerifyTask* task, int32_t device, void* stream) {
  return verify(*task, true, device, static_cast<Stream>(stream));
}

const char* specdec_cuda_sample_draft(const SampleTask* task, int32_t device, void* stream) {
  const char* error = use_device(device);
  return error ? error : launch_sample_draft(*task, static_cast<Stream>(stream));
}

int64_t specdec_cuda_scratch_bytes(int64_t requests, int64_t drafts) {
  return ScratchLayout(nullptr, requests, drafts).bytes;
}

const char* specdec_cuda_problem(int32_t device) {
  const char* error = use_device(device);
  return error ? error : problem_of_kernels();
}

const char* specdec_cuda_architectures() { return SPECDEC_CUDA_ARCHITECTURES; }

void specdec_cuda_limit(int32_t team, int64_t shared_bytes) { limits = {team, shared_bytes}; }
