// Stands in for CUDA's header: the conversions that the kernels call.
#pragma once

#include "../../csrc/cpu/half.h"

struct __half {
  uint16_t bits;
};

inline __half __float2half_rn(float x) { return {torchact::TORCHACT_CAPABILITY::Float16::narrow(x)}; }
inline float __half2float(__half x) { return torchact::TORCHACT_CAPABILITY::Float16::widen(x.bits); }
inline uint16_t __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
