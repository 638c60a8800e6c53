// The types of elements, and what is computed of them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../math.h"
#include "kernels.h"

namespace torchact::cuda {

// Each has the bits in memory, and the numbers in registers.
struct Float64 {
  using Bits = uint64_t;
  static TORCHACT_INLINE double widen(Bits bits) { return __builtin_bit_cast(double, bits); }
  static TORCHACT_INLINE Bits narrow(double x) { return __builtin_bit_cast(Bits, x); }
};

struct Float32 {
  using Bits = uint32_t;
  static TORCHACT_INLINE float widen(Bits bits) { return __builtin_bit_cast(float, bits); }
  static TORCHACT_INLINE Bits narrow(float x) { return __builtin_bit_cast(Bits, x); }
};

// What was computed in float64 is rounded to float32 and then to 16 bits, as on the CPU.
struct BFloat16 {
  using Bits = uint16_t;
  static TORCHACT_INLINE float widen(Bits bits) { return __builtin_bit_cast(float, uint32_t(bits) << 16); }
  static TORCHACT_INLINE Bits narrow(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
};

struct Float16 {
  using Bits = uint16_t;
  static TORCHACT_INLINE float widen(Bits bits) { return __half2float(__ushort_as_half(bits)); }
  static TORCHACT_INLINE Bits narrow(float x) { return __half_as_ushort(__float2half_rn(x)); }
};

// Calls `function` with the type. Only formulas that need float64 compute in it what is no float64.
template <class C, bool wide, class Function>
TORCHACT_INLINE void with_number(Type type, Function function) {
  if constexpr (std::is_same_v<C, float> || wide) {
    if (type == Type::float32) return function(Float32());
    if (type == Type::bfloat16) return function(BFloat16());
    if (type == Type::float16) return function(Float16());
  }
  if constexpr (std::is_same_v<C, double>) function(Float64());
}

// Calls it with an integer of the type's size.
template <class C, bool wide, class Function>
TORCHACT_INLINE void with_bits(Type type, Function function) {
  if constexpr (std::is_same_v<C, float> || wide) {
    if (type == Type::float32) return function(Float32::Bits());
    if (type != Type::float64) return function(BFloat16::Bits());
  }
  if constexpr (std::is_same_v<C, double>) function(Float64::Bits());
}

}  // namespace torchact::cuda
