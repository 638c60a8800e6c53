// What the operators ask of a device.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "activations.h"
#include "cpu/kernels.h"
#include "tensors.h"

namespace torchact {

namespace cpu {

void run(const Kernel& kernel, const Operands& operands, ScalarType type, const double* parameters);

// Looks results up in a table of float32 with one entry for each number of 16 bits. `operands` are the input alone, or
// grad_output and input.
void look_up(const Operands& operands, ScalarType type, const void* table);

// Computes logsigmoid and exp(-|x|), in this order.
void log_sigmoid(const Operands& operands, ScalarType type);

// Normalises over one dimension of tensors that lie side by side: (input) -> output, or (grad_output, output) ->
// grad_input. `outer`, `size` and `inner` are the products of the sizes before the dimension, of it and after it.
void softmax(Normalised kind, const Operands& operands, ScalarType type, int64_t outer, int64_t size, int64_t inner);

struct Statistics {
  Moments moments;
  std::vector<int64_t> exponents;  // how many numbers have each exponent, or an exponent in each bin, if asked for
};

// Intervals that do not overlap.
struct Intervals {
  int count = 0;
  const double *low = nullptr, *high = nullptr;
};

// What is asked for: the moments, with counts of exponents, with those in bins, or only how many lie within the intervals.
enum class Counted { moments, exponents, bins, within };

// A tensor to reduce.
struct Source {
  const void* data;
  int64_t count;
  Type type;
  std::unique_ptr<Operands> strided = nullptr;  // where its entries do not lie side by side
};

// Reduces tensors, each in one pass, on all threads together.
std::vector<Statistics> statistics(std::span<const Source> sources, const Intervals& intervals, Counted counted);

// Raises the largest magnitude of each unit to that of the entries of `data`: `outer` times `units` times `inner` of
// them that lie side by side.
void largest_of_units(const void* data, Type type, int64_t outer, int64_t units, int64_t inner, float* largest);

// The name of the instruction set that runs.
const char* instruction_set();

// Whether MKL runs its AVX-512 code here, which it does on Intel's processors alone.
bool is_intel_with_avx512();

}  // namespace cpu

#ifdef TORCHACT_CUDA
namespace cuda {

void run(const Kernel& kernel, const Operands& operands, ScalarType type, const double* parameters);
void softmax(Normalised kind, const Operands& operands, ScalarType type, int64_t outer, int64_t size, int64_t inner);

// Merge what the diagnostics want to know of a tensor into sums beside it on the device, and do not wait for that.
void add_statistics(const Operands& operands, ScalarType type, bool binned, double* sums);
void add_within(const Operands& operands, ScalarType type, const cpu::Intervals& intervals, double* sums);
void add_largest_of_units(const Tensor& input, int64_t outer, int64_t units, int64_t inner, float* largest);

}  // namespace cuda
#endif

}  // namespace torchact
