// All that the kernels use of CUDA's device language. tests/kernels/cuda/emulation.h offers the same names to the host
// compiler, so that every kernel also runs, as it stands, without a GPU.
//
// A row is worked on by a team: the thread blocks of a cluster, which read one another's shared memory. Before sm_90
// there are no clusters, and a team is one block.
#pragma once

#include <cstdint>

#ifdef SPECDEC_EMULATION
#include "emulation.h"
#else
#include <cuda_runtime.h>

#include <mutex>
#include <set>
#include <utility>

#define SPECDEC_DEVICE __device__ __forceinline__
#define SPECDEC_KERNEL(threads, blocks_per_sm) __global__ __launch_bounds__(threads, blocks_per_sm) void

namespace specdec::cuda {

constexpr int kThreads = 384;        // of a block: two blocks on a multiprocessor leave 80 registers to a thread
constexpr int kListCapacity = 2048;  // tokens that a block looks at one by one in a threshold search
constexpr unsigned kAllLanes = 0xffffffffu;

SPECDEC_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
SPECDEC_DEVICE int64_t block_index() { return blockIdx.x; }
SPECDEC_DEVICE void block_sync() { __syncthreads(); }

SPECDEC_DEVICE char* shared_memory() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

#if __CUDA_ARCH__ >= 900
SPECDEC_DEVICE int team_rank() { return static_cast<int>(__clusterRelativeBlockRank()); }
SPECDEC_DEVICE int team_size() { return static_cast<int>(__clusterSizeInBlocks()); }
SPECDEC_DEVICE void team_sync() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}
// Where block `rank` of the team has what `mine` is here, in shared memory.
template <typename T>
SPECDEC_DEVICE const T* of_rank(const T* mine, int rank) {
  return static_cast<const T*>(__cluster_map_shared_rank(mine, static_cast<unsigned>(rank)));
}
#else
SPECDEC_DEVICE int team_rank() { return 0; }
SPECDEC_DEVICE int team_size() { return 1; }
SPECDEC_DEVICE void team_sync() { __syncthreads(); }
template <typename T>
SPECDEC_DEVICE const T* of_rank(const T* mine, int) {
  return mine;
}
#endif

template <typename T>
SPECDEC_DEVICE T shuffle_xor(T x, int mask) {
  return __shfl_xor_sync(kAllLanes, x, mask);
}
template <typename T>
SPECDEC_DEVICE T shuffle_up(T x, int by) {
  return __shfl_up_sync(kAllLanes, x, by);
}
template <typename T>
SPECDEC_DEVICE T shuffle(T x, int lane) {
  return __shfl_sync(kAllLanes, x, lane);
}
SPECDEC_DEVICE unsigned ballot(bool vote) { return __ballot_sync(kAllLanes, vote); }

template <typename T>
SPECDEC_DEVICE T atomic_add(T* at, T x) {
  return atomicAdd(at, x);
}
SPECDEC_DEVICE void atomic_min(uint32_t* at, uint32_t x) { atomicMin(at, x); }
SPECDEC_DEVICE void atomic_or(uint32_t* at, uint32_t x) { atomicOr(at, x); }
SPECDEC_DEVICE uint32_t read_now(const uint32_t* at) { return *static_cast<const volatile uint32_t*>(at); }

struct alignas(16) Bits128 {
  uint32_t words[4];
};
SPECDEC_DEVICE Bits128 load_128(const void* global) {
  const uint4 x = __ldg(static_cast<const uint4*>(global));
  return {{x.x, x.y, x.z, x.w}};
}

SPECDEC_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
SPECDEC_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
SPECDEC_DEVICE double double_of(uint64_t bits) { return __longlong_as_double(static_cast<long long>(bits)); }
SPECDEC_DEVICE uint64_t bits_of(double x) { return static_cast<uint64_t>(__double_as_longlong(x)); }
SPECDEC_DEVICE float float_of_half(uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
SPECDEC_DEVICE int leading_zeros(uint32_t x) { return __clz(static_cast<int>(x)); }
SPECDEC_DEVICE int lowest_bit(unsigned x) { return __ffs(static_cast<int>(x)) - 1; }  // -1: none
SPECDEC_DEVICE int highest_bit(unsigned x) { return 31 - __clz(static_cast<int>(x)); }

typedef cudaStream_t Stream;

struct Device {
  int multiprocessors;
  int64_t shared_bytes;  // that one block can have
  bool clusters;
};

inline Device current_device() {
  int device = 0, count = 0, bytes = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  return {count, bytes, major >= 9};
}

inline const char* error_text(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

// The CUDA runtime is linked statically: it does not see which device PyTorch's copy has chosen.
inline const char* use_device(int32_t device) { return error_text(cudaSetDevice(device)); }

inline const char* fill_zero(void* at, int64_t bytes, Stream stream) {
  return error_text(cudaMemsetAsync(at, 0, static_cast<size_t>(bytes), stream));
}

// Null, or why the current device cannot run a kernel.
template <typename... Parameters>
const char* problem_of(void (*kernel)(Parameters...)) {
  cudaFuncAttributes attributes;
  return error_text(cudaFuncGetAttributes(&attributes, kernel));
}

// Beyond 48 KB a kernel must be told how much shared memory it may have. All that there is, once for each device: if
// each launch said its own, one thread could lower it between another's word and launch.
inline const char* allow_shared_memory(const void* kernel) {
  static std::mutex mutex;
  static std::set<std::pair<const void*, int> > allowed;
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  const std::lock_guard<std::mutex> lock(mutex);
  if (error == cudaSuccess && allowed.count({kernel, device}) == 0) {
    const int most = static_cast<int>(current_device().shared_bytes);
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    if (error == cudaSuccess) allowed.insert({kernel, device});
  }
  return error_text(error);
}

// Null, or what CUDA says is wrong.
template <typename... Parameters, typename... Arguments>
const char* launch_blocks(void (*kernel)(Parameters...), int64_t blocks, int team, int64_t shared_bytes, Stream stream,
                          const Arguments&... arguments) {
  if (shared_bytes > 48 << 10) {
    const char* error = allow_shared_memory(reinterpret_cast<const void*>(kernel));
    if (error) return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(team);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = team > 1 ? 1 : 0;
  return error_text(cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace specdec::cuda
#endif

namespace specdec::cuda {

typedef unsigned long long Count;  // the 64-bit type of CUDA's atomics

constexpr int kWarps = kThreads / 32;
constexpr float kInf = __builtin_huge_valf();

SPECDEC_DEVICE int lane_index() { return thread_index() % 32; }
SPECDEC_DEVICE int warp_index() { return thread_index() / 32; }

template <typename T>
SPECDEC_DEVICE T warp_sum(T x) {
  for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

// The sum of the lanes up to and with this one.
template <typename T>
SPECDEC_DEVICE T warp_scan(T x) {
  for (int by = 1; by < 32; by *= 2) {
    const T before = shuffle_up(x, by);
    if (lane_index() >= by) x += before;
  }
  return x;
}

}  // namespace specdec::cuda
