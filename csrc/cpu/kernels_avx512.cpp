#define SPECDEC_NAME "avx512"
#define SPECDEC_LANES 8
#define SPECDEC_TABLE kAvx512Kernels
#include "cpu/kernels_impl.h"
