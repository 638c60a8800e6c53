// Runs a kernel on the stream that torch has made current.
#include "../run.h"

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include <string>

#include "kernels.h"

namespace torchact::cuda {
namespace {

using CurrentStream = AOTITorchError (*)(int32_t device, void** stream);

// A torch without CUDA lacks this function: linked by name, it would keep the CPU's kernels from loading there.
CurrentStream find_current_stream() {
  void* library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
  void* function = library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr;
  STD_TORCH_CHECK(function != nullptr, "torchact: this torch has no CUDA, or not as torchact's kernels expect it");
  return reinterpret_cast<CurrentStream>(function);
}

void* current_stream(int device) {
  static const CurrentStream current = find_current_stream();
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(current(device, &stream));
  return stream;
}

std::string name_of(const Kernel& kernel) {
#define TORCHACT_STRING(key, Formula, parameters) #key,
  static constexpr const char* kElementwise[] = {TORCHACT_ELEMENTWISE(TORCHACT_STRING)};
  static constexpr const char* kPair[] = {TORCHACT_PAIRS(TORCHACT_STRING)};
#undef TORCHACT_STRING
  const std::string name = kernel.of_two ? kPair[kernel.formula] : kElementwise[kernel.formula];
  return kernel.backward ? name + "_backward" : name;
}

}  // namespace

void run(const Kernel& kernel, const Operands& operands, ScalarType scalar_type, const double* parameters) {
  const Type type = type_of(scalar_type);
  if (element_count(operands.geometry) == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(operands.device);
  const char* error = launch(kernel, type, operands, parameters, current_stream(operands.device));
  STD_TORCH_CHECK(error == nullptr, name_of(kernel), ": the kernel did not start on CUDA device ", operands.device,
                  ": ", error);
}

}  // namespace torchact::cuda
