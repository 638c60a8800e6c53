// The kernels for CUDA as a library of C functions that run on the CPU: the very same source, under stand-in headers.
#include "../../csrc/cuda/kernels.h"

#include <algorithm>
#include <string_view>

#include "cuda_runtime.h"

#include "../../csrc/cuda/layout.h"

using namespace torchact;

namespace {

int index_of(std::string_view name, std::initializer_list<std::string_view> names) {
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? -1 : int(found - names.begin());
}

// One tensor.
Operands operand(int dimensions, const int64_t* sizes, const int64_t* strides, const void* data) {
  Operands o;
  o.inputs = 1;
  o.geometry.dimensions = dimensions;
  std::copy_n(sizes, dimensions, o.geometry.sizes);
  std::copy_n(strides, dimensions, o.geometry.strides[0]);
  o.input[0] = data;
  return o;
}

// Begins an emulation of kernels whose threads wait for each other.
void begin_together() {
  emulation = {};
  emulation.together = true;
}

}  // namespace

// Runs the kernel of a formula; returns null, or what went wrong. Operands are inputs and then outputs, and `strides`
// has a row of each. Writes how many launches there were, and how many blocks, to `reached`.
extern "C" const char* run(const char* name, bool backward, int type, int inputs, int outputs, int dimensions,
                           const int64_t* sizes, const int64_t* strides, void* const* data, const double* parameters,
                           int64_t most_blocks, int64_t* reached) {
#define TORCHACT_STRING(key, Formula, parameters) #key,
  const int elementwise = index_of(name, {TORCHACT_ELEMENTWISE(TORCHACT_STRING)});
  const int pair = index_of(name, {TORCHACT_PAIRS(TORCHACT_STRING)});
#undef TORCHACT_STRING
  if (elementwise < 0 && pair < 0) return "there is no such operator";
  Operands o;
  o.inputs = inputs;
  o.outputs = outputs;
  o.geometry.dimensions = dimensions;
  std::copy_n(sizes, dimensions, o.geometry.sizes);
  for (int i = 0; i < inputs + outputs; ++i) std::copy_n(strides + i * dimensions, dimensions, o.geometry.strides[i]);
  std::copy_n(data, inputs, o.input);
  std::copy_n(data + inputs, outputs, o.output);
  emulation = {};
  emulation.most_blocks = most_blocks;
  const Kernel kernel{pair >= 0, pair >= 0 ? pair : elementwise, backward};
  const char* error = cuda::launch(kernel, Type(type), o, parameters, nullptr);
  reached[0] = emulation.launches;
  reached[1] = emulation.blocks;
  return error;
}

// Runs a softmax, or its backward pass if there are two inputs. `data` are the inputs and then the output.
extern "C" const char* softmax(const char* name, int type, int inputs, void* const* data, int64_t outer, int64_t size,
                               int64_t inner, int64_t* reached) {
#define TORCHACT_STRING(key) #key,
  const int kind = index_of(name, {TORCHACT_NORMALISED(TORCHACT_STRING)});
#undef TORCHACT_STRING
  if (kind < 0) return "there is no such operator";
  Operands o;
  o.inputs = inputs;
  o.outputs = 1;
  std::copy_n(data, inputs, o.input);
  o.output[0] = data[inputs];
  begin_together();
  const char* error = cuda::softmax(Normalised(kind), Type(type), o, outer, size, inner, nullptr);
  reached[0] = emulation.launches;
  reached[1] = emulation.blocks;
  return error;
}

extern "C" int64_t divide(int64_t n, int64_t d) { return cuda::Divisor(d).divide(n); }

// Merge statistics of a tensor, as csrc/cuda/kernels.h says; they return null, or what went wrong.
extern "C" const char* add_statistics(int type, int dimensions, const int64_t* sizes, const int64_t* strides,
                                      const void* data, bool binned, double* sums) {
  begin_together();
  return cuda::add_statistics(operand(dimensions, sizes, strides, data), Type(type), binned, sums, nullptr);
}

extern "C" const char* add_within(int type, int dimensions, const int64_t* sizes, const int64_t* strides,
                                  const void* data, int count, const double* low, const double* high, double* sums) {
  begin_together();
  cuda::Intervals intervals;
  intervals.count = count;
  std::copy_n(low, count, intervals.low);
  std::copy_n(high, count, intervals.high);
  return cuda::add_within(operand(dimensions, sizes, strides, data), Type(type), intervals, sums, nullptr);
}

extern "C" const char* add_largest_of_units(int type, const void* data, int64_t outer, int64_t units, int64_t inner,
                                            float* largest) {
  emulation = {};
  return cuda::add_largest_of_units(data, Type(type), outer, units, inner, largest, nullptr);
}
