// The end of a step under the token rule, one thread per request.
#include "cuda/finish.cuh"
#include "cuda/launch.cuh"

namespace specdec::cuda {
namespace {

SPECDEC_KERNEL(kThreads, 1) finish_token(const VerifyTask task, const Scratch scratch) {
  const int64_t b = block_index() * kThreads + thread_index();
  if (b < task.requests) finish_by_token(task, scratch, RequestRows(task, b));
}

}  // namespace

const char* problem_of_kernels() { return problem_of(finish_token); }

const char* launch_finish_token(const VerifyTask& task, const Scratch& scratch, Stream stream) {
  return launch_blocks(finish_token, (task.requests + kThreads - 1) / kThreads, 1, 0, stream, task, scratch);
}

}  // namespace specdec::cuda
