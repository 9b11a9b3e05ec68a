// The launches that make up an operation (api.cu). Each returns null, or what CUDA says is wrong.
#pragma once

#include "cuda/api.h"
#include "cuda/device.cuh"

namespace specdec::cuda {

struct Scratch;

// Of one of them, on the current device: all are compiled for the same architectures.
const char* problem_of_kernels();

const char* launch_draft_rows(const VerifyTask& task, const Scratch& scratch, Stream stream);
const char* launch_target_rows(const VerifyTask& task, const Scratch& scratch, bool by_block, Stream stream);
const char* launch_finish_token(const VerifyTask& task, const Scratch& scratch, Stream stream);
const char* launch_block_masses(const VerifyTask& task, const Scratch& scratch, Stream stream);
const char* launch_finish_block(const VerifyTask& task, const Scratch& scratch, Stream stream);
const char* launch_sample_draft(const SampleTask& task, Stream stream);

}  // namespace specdec::cuda
