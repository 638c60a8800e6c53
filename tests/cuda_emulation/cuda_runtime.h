// Stands in for CUDA's header where there is no GPU: a launch runs the threads one after the other, on the CPU. Those of
// kernels that wait for each other take turns.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __shared__ static
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

// What was launched; of how many blocks, the last, each launch runs the threads; and whether these wait for each other.
struct Emulation {
  int64_t launches = 0, blocks = 0, most_blocks = INT64_MAX;
  bool together = false;
  cudaStream_t stream = nullptr;
};
inline Emulation emulation;

// The threads of a block that wait for each other: each runs until it waits or ends, and then the next one does.
class Together {
 public:
  explicit Together(std::function<void()> kernel) : kernel_(std::move(kernel)), threads_(blockDim.x) {
    running = this;
    for (Thread& thread : threads_) {
      thread.stack = std::make_unique_for_overwrite<char[]>(kStack);
      getcontext(&thread.context);
      thread.context.uc_stack = {thread.stack.get(), 0, kStack};
      thread.context.uc_link = &back_;
      makecontext(&thread.context, [] { running->begin(); }, 0);
    }
    for (bool any = true; any;) {
      any = false;
      for (current_ = 0; current_ < threads_.size(); ++current_) {
        if (threads_[current_].ended) continue;
        threadIdx.x = current_;
        swapcontext(&back_, &threads_[current_].context);
        any = true;
      }
    }
  }

  void wait() { swapcontext(&threads_[current_].context, &back_); }

  static inline Together* running = nullptr;

 private:
  static constexpr std::size_t kStack = 1 << 16;
  struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool ended = false;
  };

  void begin() {
    kernel_();
    threads_[current_].ended = true;
  }

  std::function<void()> kernel_;
  std::vector<Thread> threads_;
  ucontext_t back_;
  unsigned current_ = 0;
};

inline void __syncthreads() { Together::running->wait(); }

template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}

template <class T>
T atomicMax(T* at, T value) {
  const T before = *at;
  *at = value > before ? value : before;
  return before;
}

template <class T>
T max(T a, T b) {
  return a > b ? a : b;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* configuration, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  gridDim = configuration->gridDim;
  blockDim = configuration->blockDim;
  ++emulation.launches;
  emulation.blocks += gridDim.x;
  emulation.stream = configuration->stream;
  const int64_t skipped = int64_t(gridDim.x) - emulation.most_blocks;
  for (int64_t block = skipped > 0 ? skipped : 0; block < int64_t(gridDim.x); ++block) {
    blockIdx.x = unsigned(block);
    if (emulation.together) {
      Together([&] { kernel(arguments...); });
      continue;
    }
    for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) kernel(arguments...);
  }
  return cudaSuccess;
}
