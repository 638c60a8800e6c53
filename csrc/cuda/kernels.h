// The kernels as the host starts them, on raw memory. Free of torch.
#pragma once

#include "../activations.h"
#include "../geometry.h"

namespace torchact::cuda {

// Starts a kernel on a stream of the current device, and does not wait for it. Returns null, or what went wrong.
const char* launch(const Kernel& kernel, Type type, const Operands& operands, const double* parameters, void* stream);

}  // namespace torchact::cuda
