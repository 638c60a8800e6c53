// torch's own operators, with our kernels: torchact.accelerate.
#pragma once

#include "tensors.h"

namespace torchact {

void define_acceleration(torch::stable::detail::StableLibrary& library);
void implement_acceleration(torch::stable::detail::StableLibrary& library);

}  // namespace torchact
