// How the host starts a kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace torchact::cuda {

constexpr int64_t kMostBlocks = (int64_t(1) << 31) - 1;  // that there can be

inline cudaLaunchConfig_t configuration(int64_t blocks, int threads, void* stream) {
  cudaLaunchConfig_t c = {};
  c.gridDim = dim3(unsigned(blocks));
  c.blockDim = dim3(unsigned(threads));
  c.stream = static_cast<cudaStream_t>(stream);
  return c;
}

// Null, or what went wrong.
inline const char* message(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

}  // namespace torchact::cuda
