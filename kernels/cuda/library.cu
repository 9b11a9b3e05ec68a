// The library as one translation unit: what its files share is read and instantiated once, not by each of them, which
// saves a quarter of nvcc's time, and two thirds of the host compiler's in tests/kernels/cuda.
#include "cuda/api.cu"
#include "cuda/block.cu"
#include "cuda/draft_rows.cu"
#include "cuda/finish.cu"
#include "cuda/sample_draft.cu"
#include "cuda/target_rows.cu"
