// What the operators ask of a device.
#pragma once

#include <vector>

#include "activations.h"
#include "cpu/kernels.h"
#include "tensors.h"

namespace torchact {

namespace cpu {

void run(const Kernel& kernel, const Operands& operands, ScalarType type, const double* parameters);

// Looks results up in a table of float32 with one entry for each number of 16 bits. `operands` are the input alone, or
// grad_output and input.
void look_up(const Operands& operands, ScalarType type, const float* table);

// Computes logsigmoid and exp(-|x|), in this order.
void log_sigmoid(const Operands& operands, ScalarType type);

// Normalises over one dimension of tensors that lie side by side: (input) -> output, or (grad_output, output) ->
// grad_input. `outer`, `size` and `inner` are the products of the sizes before the dimension, of it and after it.
void softmax(Normalised kind, const Operands& operands, ScalarType type, int64_t outer, int64_t size, int64_t inner);

struct Statistics {
  Moments moments;
  std::vector<int64_t> exponents;  // how many numbers have each exponent, or an exponent in each bin, if asked for
};

// What is asked for besides the moments.
enum class Counted { nothing, exponents, bins };

// Reduces a tensor in one pass. `low` and `high` are the ends of intervals that do not overlap.
Statistics statistics(const Operands& operands, ScalarType type, const double* low, const double* high, int intervals,
                      Counted counted);

// Raises the largest magnitude of each unit to that of the entries of `data`, which lie side by side.
void largest_of_units(const void* data, ScalarType type, const UnitsContext& context, float* largest);

// The name of the instruction set that runs.
const char* instruction_set();

}  // namespace cpu

#ifdef TORCHACT_CUDA
namespace cuda {

void run(const Kernel& kernel, const Operands& operands, ScalarType type, const double* parameters);

}  // namespace cuda
#endif

}  // namespace torchact
