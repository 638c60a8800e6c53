// Runs a kernel on the stream that torch has made current.
#include "../run.h"

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include <algorithm>
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

// Calls `start` with the current stream of a device.
template <class Start>
void on_stream(int device, const std::string& name, Start start) {
  const torch::stable::accelerator::DeviceGuard guard(device);
  const char* error = start(current_stream(device));
  STD_TORCH_CHECK(error == nullptr, name, ": the kernel did not start on CUDA device ", device, ": ", error);
}

}  // namespace

void run(const Kernel& kernel, const Operands& operands, ScalarType scalar_type, const double* parameters) {
  const Type type = type_of(scalar_type);
  if (element_count(operands.geometry) == 0) return;
  on_stream(operands.device, name_of(kernel),
            [&](void* stream) { return launch(kernel, type, operands, parameters, stream); });
}

void softmax(Normalised kind, const Operands& operands, ScalarType scalar_type, int64_t outer, int64_t size,
             int64_t inner) {
#define TORCHACT_STRING(key) #key,
  static constexpr const char* kNames[] = {TORCHACT_NORMALISED(TORCHACT_STRING)};
#undef TORCHACT_STRING
  const Type type = type_of(scalar_type);
  if (outer * size * inner == 0) return;
  on_stream(operands.device, kNames[int(kind)],
            [&](void* stream) { return softmax(kind, type, operands, outer, size, inner, stream); });
}

void add_statistics(const Operands& operands, ScalarType scalar_type, bool binned, double* sums) {
  const Type type = type_of(scalar_type);
  if (element_count(operands.geometry) == 0) return;
  on_stream(operands.device, "add_statistics",
            [&](void* stream) { return add_statistics(operands, type, binned, sums, stream); });
}

void add_within(const Operands& operands, ScalarType scalar_type, const cpu::Intervals& intervals, double* sums) {
  const Type type = type_of(scalar_type);
  STD_TORCH_CHECK(intervals.count <= Intervals::kMost, "intervals: expected at most ", int(Intervals::kMost),
                  " on CUDA, got ", intervals.count);
  if (element_count(operands.geometry) == 0) return;
  Intervals by_value;
  by_value.count = intervals.count;
  std::copy_n(intervals.low, intervals.count, by_value.low);
  std::copy_n(intervals.high, intervals.count, by_value.high);
  on_stream(operands.device, "add_within",
            [&](void* stream) { return add_within(operands, type, by_value, sums, stream); });
}

void add_largest_of_units(const Tensor& input, int64_t outer, int64_t units, int64_t inner, float* largest) {
  const Type type = type_of(input.scalar_type());
  if (input.numel() == 0) return;
  on_stream(input.get_device_index(), "add_largest_of_units", [&](void* stream) {
    return add_largest_of_units(input.const_data_ptr(), type, outer, units, inner, largest, stream);
  });
}

}  // namespace torchact::cuda
