// Stands in for CUDA's header where there is no GPU: a launch runs the threads one after the other, on the CPU.
#pragma once

#include <cstdint>

#define __host__
#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(threads)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  explicit dim3(unsigned x) : x(x) {}
};

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
using cudaStream_t = struct CUstream_st*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
};

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "an emulated error"; }

// What was launched; and of how many blocks, the last, each launch runs the threads.
struct Emulation {
  int64_t launches = 0, blocks = 0, most_blocks = INT64_MAX;
  cudaStream_t stream = nullptr;
};
inline Emulation emulation;

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* configuration, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  gridDim = configuration->gridDim;
  blockDim = configuration->blockDim;
  ++emulation.launches;
  emulation.blocks += gridDim.x;
  emulation.stream = configuration->stream;
  const int64_t skipped = int64_t(gridDim.x) - emulation.most_blocks;
  for (int64_t block = skipped > 0 ? skipped : 0; block < int64_t(gridDim.x); ++block)
    for (unsigned thread = 0; thread < blockDim.x; ++thread) {
      blockIdx.x = unsigned(block);
      threadIdx.x = thread;
      kernel(arguments...);
    }
  return cudaSuccess;
}
