// Elementary functions without branches, calls or tables, which compilers vectorise; for host and device.
//
// Polynomials and their ratios are minimax fits made in 40 digits and more; beside each stands its error, relative to
// the function that it stands for, in float32 and in float64. Every file is compiled once for each instruction set,
// hence the namespace.
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

template <class T>
constexpr T kGreatest = is_float<T> ? T(3.4028234663852886e38) : T(1.7976931348623157e308);

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
  TORCHACT_INLINE constexpr explicit Split(double x) : hi(T(x)), lo(is_float<T> ? T(x - double(T(x))) : T(0)) {}
  TORCHACT_INLINE constexpr Split(T hi, T lo) : hi(hi), lo(lo) {}
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

// a b + c with most of what rounding loses, for |a b| ≥ |c|.
template <class T>
TORCHACT_INLINE Split<T> sum_of_product(T a, T b, T c) {
  const T hi = mul_add(a, b, c);
  return {hi, mul_add(a, b, -hi) + c};
}

// a / b, in which nothing but the last rounding counts.
template <class T>
TORCHACT_INLINE T quotient(Split<T> a, Split<T> b) {
  const T inverse = T(1) / b.hi, approximate = a.hi * inverse;
  const T rest = mul_add(-approximate, b.hi, a.hi) + mul_add(-approximate, b.lo, a.lo);
  return mul_add(rest, inverse, approximate);
}

// What divides many numbers: multiplying them with its inverse, in all the digits that this needs, is faster than dividing
// each, and nothing but the last rounding counts.
template <class T>
struct Divisor {
#if TORCHACT_HAS_FMA
  T inverse, rest;
  Divisor() = default;
  TORCHACT_INLINE explicit Divisor(T b) : inverse(T(1) / b), rest(mul_add(-inverse, b, T(1)) * inverse) {}
  TORCHACT_INLINE T under(T a) const {
    const Split<T> p = product(a, inverse);
    return p.hi + mul_add(a, rest, p.lo);
  }
#else
  T b;
  Divisor() = default;
  TORCHACT_INLINE explicit Divisor(T b) : b(b) {}
  TORCHACT_INLINE T under(T a) const { return a / b; }
#endif
};

// a - b with the digits of both, but for a rounding of a.hi where b.hi is less than half of it.
template <class T>
TORCHACT_INLINE Split<T> difference(Split<T> a, Split<T> b) {
  const T hi = a.hi - b.hi;
  return {hi, (a.hi - (hi + b.hi)) + (a.lo - b.lo)};
}

// a + b with all digits, for |a| ≥ |b|
template <class T>
TORCHACT_INLINE Split<T> sum(T a, T b) {
  const T hi = a + b;
  return {hi, (a - hi) + b};
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

// The same number, of which compilers do not know that it is a constant: they would compute what depends on a clamped
// number for the bound too, and choose afterwards, several times; and GCC clamps by one instruction only what it does not
// know.
template <class T>
TORCHACT_INLINE T unknown(T constant) {
#ifdef __CUDA_ARCH__
  return constant;
#else
  volatile T stored = constant;
  return stored;
#endif
}

// The smaller and the larger of two numbers without sign: these have the order of their bits.
template <class T>
TORCHACT_INLINE T smaller(T a, T b) {
  using Signed = std::make_signed_t<Bits<T>>;
  const Signed m = __builtin_bit_cast(Signed, a), n = __builtin_bit_cast(Signed, b);
  return __builtin_bit_cast(T, m < n ? m : n);
}

template <class T>
TORCHACT_INLINE T larger(T a, T b) {
  using Signed = std::make_signed_t<Bits<T>>;
  const Signed m = __builtin_bit_cast(Signed, a), n = __builtin_bit_cast(Signed, b);
  return __builtin_bit_cast(T, m < n ? n : m);
}

// |x|, but at most `most`, also of NaN.
template <class T>
TORCHACT_INLINE T bounded_magnitude(T x, T most) {
  return smaller(absolute(x), most);
}

template <class T>
TORCHACT_INLINE T with_sign_of(T magnitude, T x) {
  constexpr Bits<T> sign = Bits<T>(1) << (8 * sizeof(T) - 1);
  return __builtin_bit_cast(
      T, Bits<T>(__builtin_bit_cast(Bits<T>, magnitude) | (__builtin_bit_cast(Bits<T>, x) & sign)));
}

// 1 / a, with the digits that its products have.
template <class T>
TORCHACT_INLINE Split<T> reciprocal(double a) {
  const double hi = 1 / a, lo = mul_add(-hi, a, 1.0) * hi;
  return is_float<T> ? Split<T>(hi) : Split<T>(T(hi), T(TORCHACT_HAS_FMA && absolute(hi) < 1e300 ? lo : 0));
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

// How small an exponential may become. `normal`: a normal number. `own`: any number, also a subnormal one. `factor`: so
// small that its product with any number is 0. And how large: `large`, as the inverse of any number; `divisor`, so large
// that any number over it is 0.
enum class Reach { normal, own, factor, large, divisor };

// What large ones are multiplied with, lest they overflow.
template <class T>
constexpr T kDown = is_float<T> ? T(0x1p-64) : T(0x1p-128);

// value · before · after, the latter two powers of 2: a number that may be too small for its type, but not with a
// factor.
template <class T>
struct Scaled {
  T value, before, after;
};

// v · s, rounded to a subnormal number at the end alone.
template <class T>
TORCHACT_INLINE T times(T v, Scaled<T> s) {
  return ((v * s.before) * s.value) * s.after;
}

template <class T>
TORCHACT_INLINE T unscaled(Scaled<T> s) {
  return (s.value * s.before) * s.after;
}

// The smallest argument within reach: beyond it results are 0.
template <class T, Reach reach>
constexpr T kLeast = reach == Reach::factor || reach == Reach::divisor ? is_float<T> ? T(-200) : T(-1470)
                     : is_float<T>                                      ? T(-110.5)
                                                                        : T(-762);

// What multiplies the argument of an exponential, without the rounding that a product would have. ln 2 over it is in
// two parts, of which the first has so few digits, 13 or 40, that its products with exponents are exact.
template <class T>
struct Unit {
  T u, ln2_hi, ln2_lo;
};

template <class T>
constexpr Unit<T> kOne = is_float<T> ? Unit<T>{T(1), T(0x1.62ep-1), T(0x1.0bfbe8e7bcd5ep-15)}
                                     : Unit<T>{T(1), T(0x1.62e42fefa4p-1), T(-0x1.8432a1b0e2634p-43)};

// exp(u x) = power · before · after · (1 + q) with |q| < ½, for x = hi + lo and u x from kLeast to 60, or 762 where it
// is large. In the reach of a factor, before and after are 1 down to exp(-80), in float64 exp(-700). The error of q is
// 0.7 · 2^-24 in float32, and half of that with care.
template <class T, Reach reach, bool careful = false>
struct Exponential {
  static constexpr int mantissa = is_float<T> ? 23 : 52, bias = is_float<T> ? 127 : 1023;
  T q, power, before = T(1), after = T(1);

  // What the exponent of `power` is larger by than n: its bias, and what `before` and `after` make up for.
  static constexpr int up = reach == Reach::own ? (is_float<T> ? 40 : 128) : reach == Reach::large ? (is_float<T> ? -64 : -128) : 0;

  TORCHACT_INLINE explicit Exponential(T hi, T lo = T(-0.0), Unit<T> unit = kOne<T>) {
    // Adding 1.5 · 2^(digits - 1) rounds to an integer n and leaves it in the lowest bits, here with what it is larger by.
    constexpr T round = (is_float<T> ? T(12582912.0) : T(6755399441055744.0)) + T(up + bias);
    const T shifted = mul_add(hi, T(1.4426950408889634) * unit.u, round);
    const T n = shifted - round;
    if constexpr (careful) {
      const T a = mul_add(n, -unit.ln2_hi, hi), b = mul_add(n, -unit.ln2_lo, lo) * unit.u, r = mul_add(a, unit.u, b);
      q = mul_add(a, unit.u, mul_add(r * r, beyond_linear(r), b));
    } else {
      const T r = (mul_add(n, -unit.ln2_lo, mul_add(n, -unit.ln2_hi, hi)) + lo) * unit.u;
      q = mul_add(r * r, beyond_linear(r), r);
    }
    Bits<T> exponent = __builtin_bit_cast(Bits<T>, shifted);
    if constexpr (reach == Reach::own) after = is_float<T> ? T(0x1p-40) : T(0x1p-128);
    if constexpr (reach == Reach::large) after = kDown<T>;
    if constexpr (reach == Reach::factor || reach == Reach::divisor) {
      const bool extreme = reach == Reach::factor ? n < (is_float<T> ? T(-115) : T(-1009)) : n > T(100);
      constexpr Bits<T> far = is_float<T> ? 166 : 1110;
      exponent += extreme ? (reach == Reach::factor ? far : -far) : 0;
      before = after = extreme ? (is_float<T> ? T(0x1p-83) : T(0x1p-555)) : T(1);
    }
    power = __builtin_bit_cast(T, Bits<T>(exponent << mantissa));
  }

  // (exp(r) - 1 - r) / r² for |r| ≤ 0.347; an error of 3.1e-9 of exp(r), 8e-18 in float64.
  TORCHACT_INLINE static T beyond_linear(T r) {
    if constexpr (is_float<T>)
      return polynomial(r, 0.499999934377, 0.16666520415, 0.0416683896819, 0.00836874320267, 0.00138145895074);
    else
      return polynomial(r, 0.50000000000000103, 0.16666666666666675, 0.04166666666652155, 0.0083333333333221943,
                     0.0013888888947956777, 0.00019841269886643297, 2.4801487171541588e-5, 2.7557242269395938e-6,
                     2.7632714164654574e-7, 2.5110077272453149e-8);
  }

  TORCHACT_INLINE Scaled<T> scaled() const { return {mul_add(power, q, power), before, after}; }
  TORCHACT_INLINE T value() const {
    const T two_to_n = (power * before) * after;
    return mul_add(two_to_n, q, two_to_n);
  }

  // 1 + exp(u x) times `before` and `after`, of a large one. What is larger of 1 and the power of 2 is added last, so
  // that only that sum is rounded to its digits.
  TORCHACT_INLINE T plus_one() const {
    const T one = before * after;
    return mul_add(power, q, smaller(power, one)) + larger(power, one);
  }

  // exp(u x) · v
  TORCHACT_INLINE Scaled<T> times(T v) const { return {mul_add(q, v, v) * power, before, after}; }
  TORCHACT_INLINE Scaled<T> times(Split<T> v) const { return {(mul_add(q, v.hi, v.lo) + v.hi) * power, before, after}; }

  // The same times c, of which nothing is lost where `power` is c times a power of 2.
  TORCHACT_INLINE Exponential operator*(T c) const {
    Exponential product = *this;
    product.power *= c;
    return product;
  }

  // exp(u x) - c, with all its digits near 0 where `power` is c times a power of 2.
  TORCHACT_INLINE T minus(T c) const {
    const T two_to_n = (power * before) * after;
    return mul_add(two_to_n, q, two_to_n - c);
  }
};

// The functions from here on that take `least` or `most` clamp their argument by it. It is the constant that stands
// there, or `unknown` of it.

// exp(x) for x ≤ 0.
template <class T>
TORCHACT_INLINE T exp_nonpositive(T x, T least = kLeast<T, Reach::own>) {
  return Exponential<T, Reach::own>(at_least(x, least)).value();
}

template <class T>
TORCHACT_INLINE T exp_nonpositive(Split<T> x, T least = kLeast<T, Reach::own>) {
  return Exponential<T, Reach::own>(at_least(x.hi, least), x.hi < least ? T(0) : x.lo).value();
}

// exp(-|x|), of NaN 0.
template <class T>
TORCHACT_INLINE T exp_of_minus_magnitude(T x) {
  return Exponential<T, Reach::own>(-bounded_magnitude(x, -kLeast<T, Reach::own>)).value();
}

// The |x| from which on exp(-|β x|) is 0.
template <class T, Reach reach>
TORCHACT_INLINE T most_of(T beta) {
  return at_most(-kLeast<T, reach> / absolute(beta), kGreatest<T>);
}

// exp(x) - 1 for x ≤ 0, with all its digits near 0; from kLeastOfExpm1 down it is -1.
template <class T>
constexpr T kLeastOfExpm1 = -50;

template <class T>
TORCHACT_INLINE T expm1_nonpositive(T x, T least = kLeastOfExpm1<T>) {
  return Exponential<T, Reach::normal>(at_least(x, least)).minus(T(1));
}

template <class T>
TORCHACT_INLINE T expm1_nonpositive(Split<T> x, T least = kLeastOfExpm1<T>) {
  return Exponential<T, Reach::normal, true>(at_least(x.hi, least), x.hi < least ? T(0) : x.lo).minus(T(1));
}

// log(1 + e) for 0 ≤ e ≤ 1, as 2 artanh(s) with s = e / (2 + e) ≤ 1/3; 7e-9 and 1e-19. In place of 2 s stands e - e s,
// which makes less of the rounding of s.
template <class T>
TORCHACT_INLINE T log1p_unit(T e) {
  const T s = e / (T(2) + e), w = s * s;
  T p;
  if constexpr (is_float<T>)
    p = polynomial(w, 0.666664452918, 0.400217276779, 0.279802532513, 0.281746572615);
  else
    p = polynomial(w, 0.66666666666666667, 0.39999999999999523, 0.28571428571600099, 0.22222222198236771,
                   0.18181819897962714, 0.15384543964860549, 0.13335178631449256, 0.11734279061303198,
                   0.10845178394880015, 0.074921437955507673, 0.15630577800922850);
  return mul_add(-s, mul_add(-w, p, e), e);
}

// log(x) of a finite x from 1 on, to 1.2 ULP; NaN of NaN. The exponent n is read off in the lowest bits of a larger number.
template <class T>
TORCHACT_INLINE T log_from_one(T x) {
  constexpr int mantissa = is_float<T> ? 23 : 52, bias = is_float<T> ? 127 : 1023;
  constexpr T one = 1, larger = T(Bits<T>(1) << mantissa);
  const Bits<T> bits = __builtin_bit_cast(Bits<T>, x), low = (Bits<T>(1) << mantissa) - 1;
  const T n = __builtin_bit_cast(T, (bits >> mantissa) | __builtin_bit_cast(Bits<T>, larger)) - (larger + bias);
  const T e = __builtin_bit_cast(T, (bits & low) | __builtin_bit_cast(Bits<T>, one)) - one;
  return mul_add(n, kOne<T>.ln2_hi, mul_add(n, kOne<T>.ln2_lo, log1p_unit(e))) + (x - x);
}

// ---- S-shaped functions

// v / (1 + e) for a large e
template <class T, Reach reach, bool careful>
TORCHACT_INLINE Scaled<T> over_plus_one(T v, Exponential<T, reach, careful> e) {
  return {v / e.plus_one(), e.before, e.after};
}

// Of -x.
template <class T>
constexpr T kMostOfSigmoid = 40;

template <class T>
TORCHACT_INLINE T sigmoid_of_minus(T x, T least = -kMostOfSigmoid<T>, T most = -kLeast<T, Reach::own>) {
  return unscaled(over_plus_one(T(1), Exponential<T, Reach::large>(clamp(x, least, most))));
}

// Of t = |x| it is -m / d with m = exp(-2t) - 1 and d = 2 + m, less what the division and d have lost over d, for which
// (1 + tanh(t)) / 2 stands.
template <class T>
TORCHACT_INLINE T tanh(T x, T least = kLeastOfExpm1<T>) {
  const T m = expm1_nonpositive(T(-2) * absolute(x), least), d = T(2) + m, y = -m / d;
  const T lost = mul_add(y, m - (d - T(2)), mul_add(y, d, m));
  return with_sign_of(mul_add(-lost, mul_add(T(0.5), y, T(0.5)), y), x);
}

// e / (1 + e)
template <class T>
TORCHACT_INLINE Scaled<T> logistic_tail(Scaled<T> e) {
  return {e.value / (T(1) + unscaled(e)), e.before, e.after};
}

// e / (1 + e)²
template <class T>
TORCHACT_INLINE Scaled<T> logistic_slope(Scaled<T> e) {
  const T plain = unscaled(e);
  return {e.value / mul_add(plain, plain + T(2), T(1)), e.before, e.after};
}

// ---- the normal distribution

template <class T>
struct Ratio {
  T numerator, denominator;
};

constexpr double kRootOfTwoPi = 2.5066282746310005024;

// The upper tail 1 - Φ(t) over exp(-t²/2), that is, Mills' ratio over √(2π), for 0 ≤ t ≤ 20, in float64 54; 1e-9 and
// 3e-16. It tends to 1 / (√(2π) t), which the ratio p / (√(2π) t p + rest) does whatever the rounding of p.
// Both are times 1.8, since just below a power of 2 rounding costs least.
template <class T>
TORCHACT_INLINE Ratio<T> mills_ratio(T t) {
  T p, rest;
  if constexpr (is_float<T>) {
    p = polynomial(t, 0.8999999991252, 0.9875914504686, 0.5196231649548, 0.15839965458054, 0.0280072003059,
                      0.002380012579602);
    rest = polynomial(t, 1.8, 1.155409519464, 0.385607033082, 0.0701831849607, 0.005966167822326);
  } else {
    p = polynomial(t, 0.8999999999999997, 1.4384342184626049, 1.133508363105922, 0.5672952911854724,
                      0.19701235299863212, 0.049075847304494595, 0.008774924758287027, 0.0010908586276689159,
                      8.634786725023065e-5, 3.375694258360896e-6);
    rest = polynomial(t, 1.8, 2.057095199202366, 1.2027213425650458, 0.4520081102457578, 0.11763086163610698,
                         0.021562587544101335, 0.002717453920221367, 0.0002164420047482424, 8.46161067852262e-6);
  }
  return {p, mul_add(T(kRootOfTwoPi) * t, p, rest)};
}

// (1 - Φ(t) - t φ(t)) / ((t0 - t) exp(-t²/2)) with the root t0 of the numerator, in the same ranges; 1.3e-8 and
// 1.1e-16. It tends to 1 / √(2π).
template <class T>
TORCHACT_INLINE Ratio<T> mills_slope(T t) {
  T p, rest;
  if constexpr (is_float<T>) {
    // Times 1.00185, with which all coefficients lie next to float32 numbers.
    p = polynomial(t, 1.29845115025, 1.48884054206, 0.7548630300253, 0.193598857879, 0.02148247741527);
    rest = polynomial(t, -1.302405201971, -0.9748115921578, -0.3112039999391, -0.04047338732449, -1.674584624935e-7);
  } else {
    p = polynomial(t, 1.2960532259987871, 2.480289123451483, 2.2712485984996595, 1.2889331300090117,
                      0.4970927114244999, 0.1350102813116443, 0.025880566071915242, 0.003392877794539295,
                      0.000278254924838276, 1.1020610218936406e-5);
    rest = polynomial(t, -1.3, -1.9702355685921549, -1.4359897286714245, -0.6470472237619896, -0.19594252671347243,
                         -0.04079061772211269, -0.005717035170897697, -0.0004967362290179632, -2.0767919989054785e-5);
  }
  return {p, mul_add(T(kRootOfTwoPi), p, rest)};
}

// exp(-t²/2)
template <class T, Reach reach>
TORCHACT_INLINE Exponential<T, reach> bell(T t) {
  constexpr Unit<T> half{T(-0.5), -2 * kOne<T>.ln2_hi, -2 * kOne<T>.ln2_lo};
  const Split<T> square = product(t, t);
  return Exponential<T, reach>(square.hi, square.lo, half);
}

// ---- waves, of angles up to 2^20 in float64

constexpr double kMostAngle = 1048576;

// The sine and cosine of an angle.
struct Wave {
  double s, c;
  TORCHACT_INLINE double sine() const { return s; }
  TORCHACT_INLINE double cosine() const { return c; }
  TORCHACT_INLINE double square_of_sum() const { return (s + c) * (s + c); }
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

// The same to the digits that float32 has, also relative to themselves. Each is the sine of the angle plus a part of π,
// by the nearest multiple of π alone: there is no choice between two series, and what is not used is not computed.
struct RoundedWave {
  double angle;

  // What remains of the angle + part · π less n π, at most π/2, and n in the lowest bit. With fused multiply-add one
  // subtraction loses nothing that counts beside the remainder; without, two have exact products.
  struct Remainder {
    double r;
    uint64_t n;
  };
  TORCHACT_INLINE Remainder remainder(double part) const {
    constexpr double round = 6755399441055744.0;
    const double shifted = mul_add(angle, 0.31830988618379067, part) + round, n = (shifted - round) - part;
    double r;
    if constexpr (TORCHACT_HAS_FMA) {
      r = mul_add(n, -0x1.921fb54442d18p+1, angle);
      r = mul_add(n, -0x1.1a62633145c07p-53, r);
    } else {
      r = mul_add(n, -0x1.921fb548p+1, angle);
      r = mul_add(n, 0x1.de973dc8p-30, r);
      r = mul_add(n, 0x1.9d9cceba3f91fp-61, r);
    }
    return {r, __builtin_bit_cast(uint64_t, shifted)};
  }

  // 6e-9
  TORCHACT_INLINE static double sine_of(Remainder m) {
    const double w = m.r * m.r;
    const double p = polynomial(w, -0.16666659544653204, 0.0083330660849333284, -0.00019809590249088044,
                                2.6057509786296708e-6);
    const double r = __builtin_bit_cast(double, __builtin_bit_cast(uint64_t, m.r) ^ (m.n << 63));
    return mul_add(r * w, p, r);
  }

  // 1.6e-8
  TORCHACT_INLINE static double square_of_sine_of(Remainder m) {
    const double w = m.r * m.r;
    return mul_add(w * w, polynomial(w, -0.33333308423890981, 0.044443132436963047, -0.0031723000532566344,
                                     0.00013929241999247836, -3.6207457647197214e-6), w);
  }

  TORCHACT_INLINE double sine() const { return sine_of(remainder(0)); }
  TORCHACT_INLINE double cosine() const { return sine_of(remainder(0.5)); }
  TORCHACT_INLINE double square_of_sine() const { return square_of_sine_of(remainder(0)); }
  TORCHACT_INLINE double square_of_sum() const { return 2 * square_of_sine_of(remainder(0.25)); }
};

}  // namespace torchact::TORCHACT_CAPABILITY::math
