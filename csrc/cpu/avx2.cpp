#define TORCHACT_CAPABILITY avx2
#include "capability.h"

const torchact::cpu::Kernels torchact::cpu::kAVX2 = torchact::avx2::kernels("AVX2");
