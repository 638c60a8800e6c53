// Stands in for CUDA's header: the conversions that the kernels call.
#pragma once

#include "../../csrc/cpu/half.h"

struct __nv_bfloat16 {
  uint16_t bits;
};

inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {torchact::TORCHACT_CAPABILITY::BFloat16::narrow(x)}; }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
