// Numbers of 16 bits and float32: branch-free, so that compilers vectorise the loops over them.
#pragma once

#include <cstdint>

#include "../math.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace torchact::TORCHACT_CAPABILITY {

// Two numbers of 16 bits that lie side by side. Taken apart and put together within a word, they need not be moved from
// one place of a vector to another.
using Word [[gnu::may_alias, gnu::aligned(2)]] = uint32_t;

struct BFloat16 {
  static constexpr bool kInWords = true;  // whether two in a word are worked on faster than one by one

  TORCHACT_INLINE static float lower(uint32_t word) { return __builtin_bit_cast(float, word << 16); }
  TORCHACT_INLINE static float upper(uint32_t word) { return __builtin_bit_cast(float, word & 0xffff0000); }

  // Of what was computed of such numbers: NaN stays NaN only where its lower 16 bits are 0.
  TORCHACT_INLINE static uint32_t word(float lower, float upper) {
    return rounded(lower) >> 16 | (rounded(upper) & 0xffff0000);
  }

  static float widen(uint16_t bits) { return __builtin_bit_cast(float, uint32_t(bits) << 16); }

  static uint16_t narrow(float x) {
    return uint16_t(rounded(x) >> 16 | (x != x ? 0x7fc0 : 0));
  }

 private:
  // In the upper 16 bits; of a NaN, some number.
  TORCHACT_INLINE static uint32_t rounded(float x) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    return bits + 0x7fff + (bits >> 16 & 1);
  }
};

struct Float16 {
  static constexpr bool kInWords = false;

  TORCHACT_INLINE static float lower(uint32_t word) { return widen(word & 0xffff); }
  TORCHACT_INLINE static float upper(uint32_t word) { return widen(word >> 16); }
  TORCHACT_INLINE static uint32_t word(float lower, float upper) {
    return narrow(lower) | uint32_t(narrow(upper)) << 16;
  }

  // The exponent's bias is 15 where float32 has 127: a product with 2^112 makes up for it, of subnormal numbers too.
  static float widen(uint16_t bits) {
    const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13;
    const float scaled = __builtin_bit_cast(float, magnitude) * 0x1p112f;
    const uint32_t special = magnitude | 0x7f800000;  // infinity and NaN
    const uint32_t finite = __builtin_bit_cast(uint32_t, scaled);
    return __builtin_bit_cast(float, (magnitude >= 0x0f800000 ? special : finite) | uint32_t(bits & 0x8000) << 16);
  }

  static uint16_t narrow(float x) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    const uint32_t magnitude = bits & 0x7fffffff;
    // Adding ½ has the adder shift a number below 2^-14 to where its last bit is 2^-24, and round it to even.
    const uint32_t subnormal = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, magnitude) + 0.5f) - 0x3f000000;
    const uint32_t normal = (magnitude - (112u << 23) + 0x0fff + ((magnitude >> 13) & 1)) >> 13;
    const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;
    const uint32_t large = magnitude > 0x7f800000 ? 0x7e00u | (magnitude >> 13 & 0x3ff) : 0x7c00u;
    return uint16_t((magnitude >= 0x477ff000 ? large : finite) | (bits >> 16 & 0x8000));
  }
};

// Convert numbers that lie side by side.
template <class Type>
TORCHACT_INLINE void widen_each(const uint16_t* x, float* y, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = Type::widen(x[i]);
}

template <class Type>
TORCHACT_INLINE void narrow_each(const float* x, uint16_t* y, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = Type::narrow(x[i]);
}

// Multiplies numbers that lie side by side with factors in float32.
template <class Type>
TORCHACT_INLINE void multiply_each(const uint16_t* x, const float* factors, uint16_t* y, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = Type::narrow(Type::widen(x[i]) * factors[i]);
}

#ifdef __F16C__
// By instructions for eight at a time, which compilers do not choose by themselves.
template <>
TORCHACT_INLINE void widen_each<Float16>(const uint16_t* x, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
  for (; i < count; ++i) y[i] = Float16::widen(x[i]);
}

template <>
TORCHACT_INLINE void narrow_each<Float16>(const float* x, uint16_t* y, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < count; ++i) y[i] = Float16::narrow(x[i]);
}

template <>
TORCHACT_INLINE void multiply_each<Float16>(const uint16_t* x, const float* factors, uint16_t* y, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 wide = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i)));
    const __m256 product = _mm256_mul_ps(wide, _mm256_loadu_ps(factors + i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), _mm256_cvtps_ph(product, _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < count; ++i) y[i] = Float16::narrow(Float16::widen(x[i]) * factors[i]);
}
#endif

// How numbers of a type lie in memory, and what they are computed in.
template <class T>
struct Number {
  using Stored = T;
  using Computed = T;
  TORCHACT_INLINE static T load(T x) { return x; }
  template <class Wide>
  TORCHACT_INLINE static T store(Wide x) {
    return T(x);
  }
};

template <class Type>
struct HalfNumber : Type {
  using Stored = uint16_t;
  using Computed = float;
  TORCHACT_INLINE static float load(uint16_t bits) { return Type::widen(bits); }
  template <class Wide>
  TORCHACT_INLINE static uint16_t store(Wide x) {
    return Type::narrow(float(x));
  }
};

template <>
struct Number<BFloat16> : HalfNumber<BFloat16> {};

template <>
struct Number<Float16> : HalfNumber<Float16> {};

}  // namespace torchact::TORCHACT_CAPABILITY
