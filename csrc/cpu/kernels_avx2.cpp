#define SPECDEC_NAME "avx2"
#define SPECDEC_LANES 4
#define SPECDEC_TABLE kAvx2Kernels
#include "cpu/kernels_impl.h"
