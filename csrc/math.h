// Elementary functions without branches, calls or tables, which compilers vectorise; for host and device.
//
// Polynomials were fitted by Chebyshev interpolation in 60 digits; the error beside each is that of the exact polynomial,
// relative to the function that it stands for. Every file is compiled once for each instruction set, hence the namespace.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__
#define TORCHACT_INLINE __host__ __device__ inline
#else
#define TORCHACT_INLINE inline __attribute__((always_inline))
#endif

#ifndef TORCHACT_CAPABILITY
#define TORCHACT_CAPABILITY generic
#endif

#if defined(__FMA__) || defined(__aarch64__) || defined(__CUDA_ARCH__)
#define TORCHACT_HAS_FMA 1
#else
#define TORCHACT_HAS_FMA 0
#endif

namespace torchact::TORCHACT_CAPABILITY::math {

template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

template <class T>
constexpr bool is_float = sizeof(T) == 4;

constexpr double kInfinity = __builtin_inf();

// ---- arithmetic

// a·b + c, rounded once where the machine can.
TORCHACT_INLINE float mul_add(float a, float b, float c) {
#if TORCHACT_HAS_FMA
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

TORCHACT_INLINE double mul_add(double a, double b, double c) {
#if TORCHACT_HAS_FMA
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// A number with more digits than T has: hi + lo, where lo is at most the last place of hi.
template <class T>
struct Split {
  T hi, lo;
  TORCHACT_INLINE explicit Split(double x) : hi(T(x)), lo(is_float<T> ? T(x - double(T(x))) : T(0)) {}
  TORCHACT_INLINE Split(T hi, T lo) : hi(hi), lo(lo) {}
};

// The product of two numbers with all its digits; in float64 without fused multiply-add, with those of hi.
TORCHACT_INLINE Split<float> product(float a, float b) {
  const float hi = a * b;
#if TORCHACT_HAS_FMA
  return {hi, __builtin_fmaf(a, b, -hi)};
#else
  return {hi, float(double(a) * double(b) - double(hi))};
#endif
}

TORCHACT_INLINE Split<double> product(double a, double b) {
  const double hi = a * b;
#if TORCHACT_HAS_FMA
  return {hi, __builtin_fma(a, b, -hi)};
#else
  return {hi, 0.0};
#endif
}

template <class T>
TORCHACT_INLINE Split<T> product(Split<T> a, T b) {
  const Split<T> p = product(a.hi, b);
  return {p.hi, mul_add(a.lo, b, p.lo)};
}

// The sum of two numbers with all its digits (Knuth, The Art of Computer Programming 2, 4.2.2, theorem B).
template <class T>
TORCHACT_INLINE Split<T> sum(T a, T b) {
  const T hi = a + b, from_b = hi - a;
  return {hi, (a - (hi - from_b)) + (b - from_b)};
}

// NaN stays NaN in all of these.
template <class T>
TORCHACT_INLINE T at_least(T x, T low) {
  return x < low ? low : x;
}

template <class T>
TORCHACT_INLINE T at_most(T x, T high) {
  return x > high ? high : x;
}

template <class T>
TORCHACT_INLINE T clamp(T x, T low, T high) {
  return at_most(at_least(x, low), high);
}

template <class T>
TORCHACT_INLINE T absolute(T x) {
  constexpr Bits<T> sign = Bits<T>(1) << (8 * sizeof(T) - 1);
  return __builtin_bit_cast(T, Bits<T>(__builtin_bit_cast(Bits<T>, x) & ~sign));
}

template <class T>
TORCHACT_INLINE T with_sign_of(T magnitude, T x) {
  constexpr Bits<T> sign = Bits<T>(1) << (8 * sizeof(T) - 1);
  return __builtin_bit_cast(
      T, Bits<T>(__builtin_bit_cast(Bits<T>, magnitude) | (__builtin_bit_cast(Bits<T>, x) & sign)));
}

// The polynomial c0 + c1 x + c2 x² + …, by Horner's rule.
template <class T>
TORCHACT_INLINE T polynomial(T, double c) {
  return T(c);
}

template <class T, class... Coefficients>
TORCHACT_INLINE T polynomial(T x, double c, Coefficients... rest) {
  return mul_add(x, polynomial(x, rest...), T(c));
}

// ---- exponentials

// exp(x) = 2^n exp(r) with an integer n and |r| ≤ ln(2) / 2.
template <class T>
struct Reduced {
  T r;
  Bits<T> n;  // in the lowest bits; those above them are not to be used
};

// Reduces x.hi + x.lo within [-2^8, 0] · ln 2, or [-2^11, 0] · ln 2 in float64.
template <class T>
TORCHACT_INLINE Reduced<T> reduced(Split<T> x) {
  // Adding 1.5 · 2^(digits - 1) rounds to an integer and leaves it in the lowest bits. The first part of ln 2 has so few
  // digits that its product with n is exact.
  constexpr T round = is_float<T> ? T(12582912.0) : T(6755399441055744.0);
  constexpr T ln2_hi = is_float<T> ? T(0.693115234375) : T(0x1.62e42fefa4p-1);
  constexpr T ln2_lo = is_float<T> ? T(3.194618494530942e-5) : T(-0x1.8432a1b0e2634p-43);
  const T shifted = mul_add(x.hi, T(1.4426950408889634), round);
  const T n = shifted - round;
  const T r = mul_add(n, -ln2_lo, mul_add(n, -ln2_hi, x.hi)) + x.lo;
  return {r, __builtin_bit_cast(Bits<T>, shifted)};
}

// exp(r) - 1 for |r| ≤ 0.347; 2e-10 of exp(r), 2e-17 in float64.
template <class T>
TORCHACT_INLINE T expm1_near_zero(T r) {
  T p;
  if constexpr (is_float<T>)
    p = polynomial(r, 0.50000000136201387, 0.16666666681794625, 0.041666463386339527, 0.0083333107545768925,
                   0.0013933820489776019, 0.00019891180158282142);
  else
    p = polynomial(r, 0.5, 0.16666666666666667, 0.041666666666623477, 0.0083333333333300118, 0.0013888888917538296,
                   0.00019841269863303223, 2.4801520792572693e-5, 2.7557268072890098e-6, 2.7620327428268238e-7,
                   2.5100569275813683e-8);
  return mul_add(r * r, p, r);
}

// 2^(n + up), of an integer n in the lowest bits, where that is a normal number.
template <class T>
TORCHACT_INLINE T power_of_two(Bits<T> n, int up) {
  constexpr int mantissa = is_float<T> ? 23 : 52, bias = is_float<T> ? 127 : 1023;
  return __builtin_bit_cast(T, Bits<T>((n << mantissa) + (Bits<T>(bias + up) << mantissa)));
}

template <class T>
constexpr T kLeastExponent = is_float<T> ? T(-174) : T(-1416);  // exp of it times 2^kUp is a normal number

// A number of at most 1, or little more, times 2^kUp: products with numbers that need not be small keep the digits that a subnormal number would lose.
template <class T>
struct Scaled {
  T up;
};

template <class T>
constexpr int kUp = is_float<T> ? 126 : 1022;

template <class T>
constexpr T kUpFactor = is_float<T> ? T(0x1p126) : T(0x1p1022);

template <class T>
constexpr T kDownFactor = T(1) / kUpFactor<T>;

// v · s, rounded to a subnormal number at the end alone. It is 0 where s is, of an infinite v too.
template <class T>
TORCHACT_INLINE T times(T v, Scaled<T> s) {
  const bool large = absolute(v) > T(1);
  const T finite = s.up == 0 ? clamp(v, T(-1), T(1)) : v;
  return ((large ? finite * kDownFactor<T> : finite) * s.up) * (large ? T(1) : kDownFactor<T>);
}

// exp(x) for x ≤ 0.
template <class T>
TORCHACT_INLINE Scaled<T> exp_scaled(Split<T> x) {
  const bool underflows = x.hi < kLeastExponent<T>;
  const Reduced<T> e = reduced(Split<T>(underflows ? kLeastExponent<T> : x.hi, underflows ? T(0) : x.lo));
  const T scaled = (T(1) + expm1_near_zero(e.r)) * power_of_two<T>(e.n, kUp<T>);
  return {underflows ? T(0) : scaled};
}

template <class T>
TORCHACT_INLINE T exp_nonpositive(Split<T> x) {
  return exp_scaled(x).up * kDownFactor<T>;
}

template <class T>
TORCHACT_INLINE T exp_nonpositive(T x) {
  return exp_nonpositive(Split<T>(x, T(0)));
}

// exp(x) - 1 for x ≤ 0, with all its digits near 0.
template <class T>
TORCHACT_INLINE T expm1_nonpositive(Split<T> x) {
  constexpr T least = is_float<T> ? T(-20) : T(-40);  // exp of it does not count beside 1
  const bool ends = x.hi < least;
  const Reduced<T> e = reduced(Split<T>(ends ? least : x.hi, ends ? T(0) : x.lo));
  const T scale = power_of_two<T>(e.n, 0);
  return mul_add(scale, expm1_near_zero(e.r), scale - T(1));
}

template <class T>
TORCHACT_INLINE T expm1_nonpositive(T x) {
  return expm1_nonpositive(Split<T>(x, T(0)));
}

// log(1 + e) for 0 ≤ e ≤ 1, as 2 artanh(s) with s = e / (2 + e) ≤ 1/3; 4e-10 and 1e-19. In place of 2 s stands e - e s,
// which makes less of the rounding of s.
template <class T>
TORCHACT_INLINE T log1p_unit(T e) {
  const T s = e / (T(2) + e), w = s * s;
  T p;
  if constexpr (is_float<T>)
    p = polynomial(w, 0.66666667320527413, 0.39999706331929717, 0.28592357994302838, 0.21706575800880373,
                   0.23224329224023349);
  else
    p = polynomial(w, 0.66666666666666667, 0.39999999999999523, 0.28571428571600099, 0.22222222198236771,
                   0.18181819897962714, 0.15384543964860549, 0.13335178631449256, 0.11734279061303198,
                   0.10845178394880015, 0.074921437955507673, 0.15630577800922850);
  return mul_add(-s, mul_add(-w, p, e), e);
}

// ---- S-shaped functions

// σ(x) with e = exp(-|x|), which has all its digits in the left tail.
template <class T>
TORCHACT_INLINE T sigmoid_from(T x, T e) {
  return (x < 0 ? e : T(1)) / (T(1) + e);
}

// The same, scaled.
template <class T>
TORCHACT_INLINE Scaled<T> gate_from(T x, Scaled<T> e) {
  return {(x < 0 ? e.up : kUpFactor<T>) / (T(1) + e.up * kDownFactor<T>)};
}

template <class T>
TORCHACT_INLINE T sigmoid(T x) {
  return sigmoid_from(x, exp_nonpositive(-absolute(x)));
}

template <class T>
TORCHACT_INLINE T tanh(T x) {
  const T m = expm1_nonpositive(T(-2) * absolute(x));
  return with_sign_of(-m / (T(2) + m), x);
}

// ---- the normal distribution

// exp(-t²/2).
template <class T>
TORCHACT_INLINE Scaled<T> bell(T t) {
  const Split<T> square = product(t, t);
  return exp_scaled(Split<T>(T(-0.5) * square.hi, T(-0.5) * square.lo));
}

// The upper tail 1 - Φ(t) over exp(-t²/2), for 0 ≤ t ≤ 19, in float64 54: Mills' ratio over √(2π). It is G(s) / (t + k)
// with a smooth G of s = (t - k) / (t + k); 8e-9 and 2e-17.
template <class T>
TORCHACT_INLINE T scaled_tail(T t) {
  constexpr T k = is_float<T> ? T(2) : T(4);
  const T d = T(1) / (t + k), s = (t - k) * d;
  T g;
  if constexpr (is_float<T>)
    g = polynomial(s, 0.67240800571323430, -0.33140447756281668, 0.028797303693573972, 0.036719439386403965,
                   -0.00046885651794857524, -0.0067345100340612349, -0.0019557382477201707, 0.00082222128944630499,
                   0.00084460696600743337, 0.00013735752737044264, -0.00015466129279003045, -6.9373327850560700e-5);
  else
    g = polynomial(s, 0.75528513041575149, -0.60789664197189205, 0.38713740074221444, -0.18652185795966308,
                   0.060396574890938320, -0.0075401889665422289, -0.0034796923673391825, 0.0016308184549315003,
                   0.00013334431074035051, -0.00023109491435856907, -1.9082405129362718e-6, 3.5144589595458040e-5,
                   7.1656379223487904e-7, -5.9199003806254204e-6, -6.2934986484761878e-7, 1.0210909711781278e-6,
                   2.7108682326698765e-7, -1.5454253115959356e-7, -8.4514732142258138e-8, 1.3166769650540662e-8,
                   1.9004695823175931e-8, 1.8101197811859083e-9, -2.3423920359125650e-9, -6.5690507249546202e-10);
  return g * d;
}

// ---- waves, of angles up to 2^20 in float64

constexpr double kMostAngle = 1048576;

struct Wave {
  double sine, cosine;
};

// Subtracts the nearest multiple of π/2, in three parts of which two have exact products, and turns the result by it.
TORCHACT_INLINE Wave wave(double angle) {
  constexpr double round = 6755399441055744.0;
  const double shifted = mul_add(angle, 0.63661977236758134, round), n = shifted - round;
  const uint64_t quarter = __builtin_bit_cast(uint64_t, shifted);
  double r = mul_add(n, -0x1.921fb548p+0, angle);
  r = mul_add(n, 0x1.de973dc8p-31, r);
  r = mul_add(n, 0x1.9d9cceba3f91fp-62, r);
  const double w = r * r;
  // 1e-17 and 5e-19.
  const double sine = mul_add(r * w,
                              polynomial(w, -0.16666666666666665, 0.0083333333333309366, -0.00019841269836740532,
                                         2.7557316093198405e-6, -2.5051129896450186e-8, 1.5917988979397433e-10),
                              r);
  const double cosine = mul_add(w * w,
                                polynomial(w, 0.041666666666666665, -0.0013888888888887390, 2.4801587298754401e-5,
                                           -2.7557317265878080e-7, 2.0876145049413179e-9, -1.1382546453249250e-11),
                                mul_add(w, -0.5, 1.0));
  const bool swapped = quarter & 1;
  const uint64_t sine_sign = (quarter & 2) << 62, cosine_sign = ((quarter + 1) & 2) << 62;
  const double s = swapped ? cosine : sine, c = swapped ? sine : cosine;
  return {__builtin_bit_cast(double, __builtin_bit_cast(uint64_t, s) ^ sine_sign),
          __builtin_bit_cast(double, __builtin_bit_cast(uint64_t, c) ^ cosine_sign)};
}

}  // namespace torchact::TORCHACT_CAPABILITY::math
