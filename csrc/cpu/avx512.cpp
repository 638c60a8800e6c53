#define TORCHACT_CAPABILITY avx512
#include "capability.h"

const torchact::cpu::Kernels torchact::cpu::kAVX512 = torchact::avx512::kernels("AVX-512");
