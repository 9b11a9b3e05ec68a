#define SPECDEC_NAME "scalar"
#define SPECDEC_LANES 1
#define SPECDEC_TABLE kScalarKernels
#include "cpu/kernels_impl.h"
