#define TORCHACT_CAPABILITY baseline
#include "capability.h"

const torchact::cpu::Kernels torchact::cpu::kBaseline = torchact::baseline::kernels("baseline");
