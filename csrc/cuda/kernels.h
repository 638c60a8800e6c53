// The kernels as the host starts them, on raw memory. Free of torch.
#pragma once

#include "../activations.h"
#include "../geometry.h"

namespace torchact::cuda {

// Starts a kernel on a stream of the current device, and does not wait for it. Returns null, or what went wrong.
const char* launch(const Kernel& kernel, Type type, const Operands& operands, const double* parameters, void* stream);

// Starts a softmax over lines of `size` entries, in tensors of `outer` times `size` times `inner` that lie side by side:
// (input) -> output, or (grad_output, output) -> grad_input.
const char* softmax(Normalised kind, Type type, const Operands& operands, int64_t outer, int64_t size, int64_t inner,
                    void* stream);

// Merge the statistics of `operands`, one tensor, into `sums` on the device: count, Σ x, Σ x², zeros, non-finite and
// subnormal numbers, bins of exponents where asked for, and the largest magnitude.
const char* add_statistics(const Operands& operands, Type type, bool binned, double* sums, void* stream);

// Intervals that do not overlap, by value.
struct Intervals {
  static constexpr int kMost = 8;
  int count = 0;
  double low[kMost], high[kMost];
};

// Adds to `sums` how many entries a tensor has, and how many of them lie in the intervals.
const char* add_within(const Operands& operands, Type type, const Intervals& intervals, double* sums, void* stream);

// Raises the largest magnitude of each unit to that of its entries: `outer` times `units` times `inner` of them that lie
// side by side.
const char* add_largest_of_units(const void* input, Type type, int64_t outer, int64_t units, int64_t inner,
                                 float* largest, void* stream);

}  // namespace torchact::cuda
