// The value and the derivative of every activation, for host and device; what each is called is in activations.h.
//
// A formula is made from the activation's parameters and takes the pre-activation x; where the backward pass is given
// the output y instead, its derivative takes that. Functions of two tensors have partial derivatives. No finite number
// gives NaN. At a kink the derivative is torch's, mostly that of the left. In float32 with fused multiply-add, values are
// at most 2 units in the last place off, but for the normal distribution's 3.5, derivatives 4, and of two tensors both 5,
// relative to themselves also near a zero; in float64 a few, relative to the greatest derivative near its root.
#pragma once

#include "activations.h"
#include "math.h"

namespace torchact::TORCHACT_CAPABILITY::formulas {

using namespace math;

// What formulas have in common.
struct Smooth {
  static constexpr bool wide = false;     // whether float32 numbers have to be computed in float64
  static constexpr bool selects = false;  // whether a derivative of 0 makes a gradient 0, whatever it multiplies
  static constexpr bool waves = false;    // whether it takes angles, and answers only those that fit
};

// An infinite grad_output must not become NaN where a piecewise derivative is zero.
template <bool selects, class T>
TORCHACT_INLINE T gradient(T grad_output, T derivative) {
  return selects && derivative == 0 ? T(0) : grad_output * derivative;
}

template <bool, class T>
TORCHACT_INLINE T gradient(T grad_output, Scaled<T> derivative) {
  return times(grad_output, derivative);
}

struct Piecewise : Smooth {
  static constexpr bool selects = true;
};

struct Waves : Smooth {
  static constexpr bool wide = true;
  static constexpr bool waves = true;
};

// The derivatives of a function of two tensors.
template <class T>
struct Partials {
  T by_first, by_second;
};

#define TORCHACT_NO_PARAMETERS(Formula) TORCHACT_INLINE explicit Formula(const double*) {}

// ---- S-shaped

template <class T>
struct SigmoidBounds {
  T least = unknown(-kMostOfSigmoid<T>), most = unknown(-kLeast<T, Reach::own>);
  TORCHACT_INLINE T sigmoid_of_minus(T x) const { return math::sigmoid_of_minus(x, least, most); }
};

/// σ(x) = 1 / (1 + exp(-x)); σ' = y (1 - y)
template <class T>
struct Sigmoid : Smooth {
  SigmoidBounds<T> bounds;
  TORCHACT_NO_PARAMETERS(Sigmoid)
  TORCHACT_INLINE T value(T x) const { return bounds.sigmoid_of_minus(-x); }
  TORCHACT_INLINE T derivative(T y) const { return y * (T(1) - y); }
};

/// tanh(x); tanh' = 1 - y²
template <class T>
struct Tanh : Smooth {
  T least = unknown(kLeastOfExpm1<T>);
  TORCHACT_NO_PARAMETERS(Tanh)
  TORCHACT_INLINE T value(T x) const { return math::tanh(x, least); }
  TORCHACT_INLINE T derivative(T y) const { return T(1) - y * y; }
};

/// log σ(x) = min(x, 0) - log(1 + exp(-|x|)); σ(-x)
template <class T>
struct LogSigmoid : Smooth {
  T zero = unknown(T(0));
  SigmoidBounds<T> bounds;
  TORCHACT_NO_PARAMETERS(LogSigmoid)
  TORCHACT_INLINE T value(T x) const { return at_most(x, zero) - log1p_unit(exp_of_minus_magnitude(x)); }
  TORCHACT_INLINE T derivative(T x) const { return bounds.sigmoid_of_minus(x); }
};

// 1 / (1 + t)² for t ≥ 0, with what 1 + t and its inverse lose
template <class T>
TORCHACT_INLINE T square_of_inverse(T t) {
  const T inside = at_most(t, is_float<T> ? T(0x1p100) : T(0x1p600));
  const Split<T> d = sum(at_least(inside, T(1)), at_most(inside, T(1)));
  const T r = T(1) / d.hi, lost = mul_add(-r, d.lo, mul_add(-r, d.hi, T(1)));
  const Split<T> square = product(r, r);
  return square.hi + mul_add(lost + lost, square.hi, square.lo);
}

/// x / (1 + |x|); 1 / (1 + |x|)²
template <class T>
struct Softsign : Smooth {
  TORCHACT_NO_PARAMETERS(Softsign)
  // Beyond 2^60 it is ±1, and ∞ / ∞ would be NaN.
  TORCHACT_INLINE T value(T x) const {
    const T inside = clamp(x, T(-0x1p60), T(0x1p60));
    return inside / (T(1) + absolute(inside));
  }
  TORCHACT_INLINE T derivative(T x) const {
    return square_of_inverse(absolute(x));
  }
};

/// x between a and b, which it does not pass
template <class T>
struct Hardtanh : Piecewise {
  T low, high;
  TORCHACT_INLINE explicit Hardtanh(const double* p) : low(T(p[0])), high(T(p[1])) {}
  TORCHACT_INLINE T value(T x) const { return clamp(x, low, high); }
  TORCHACT_INLINE T derivative(T x) const { return x > low && x < high ? T(1) : T(0); }
};

/// (x + 3) / 6 between 0 and 1
template <class T>
struct Hardsigmoid : Piecewise {
  TORCHACT_NO_PARAMETERS(Hardsigmoid)
  TORCHACT_INLINE T value(T x) const { return clamp(x + T(3), T(0), T(6)) * T(1.0 / 6); }
  TORCHACT_INLINE T derivative(T x) const { return x > T(-3) && x < T(3) ? T(1.0 / 6) : T(0); }
};

// ---- rectifiers

/// max(0, x); 0 where y is 0, else 1
template <class T>
struct ReLU : Piecewise {
  TORCHACT_NO_PARAMETERS(ReLU)
  TORCHACT_INLINE T value(T x) const { return at_least(x, T(0)); }
  TORCHACT_INLINE T derivative(T y) const { return y <= 0 ? T(0) : T(1); }
};

/// x between 0 and 6, which it does not pass
template <class T>
struct ReLU6 : Piecewise {
  TORCHACT_NO_PARAMETERS(ReLU6)
  TORCHACT_INLINE T value(T x) const { return clamp(x, T(0), T(6)); }
  TORCHACT_INLINE T derivative(T x) const { return x > 0 && x < T(6) ? T(1) : T(0); }
};

/// x where x > 0, else a x
template <class T>
struct LeakyReLU : Piecewise {
  T slope;
  TORCHACT_INLINE explicit LeakyReLU(const double* p) : slope(T(p[0])) {}
  TORCHACT_INLINE T value(T x) const { return x > 0 ? x : slope * x; }
  TORCHACT_INLINE T derivative(T x) const { return x > 0 ? T(1) : slope; }
};

/// x where x > t, else v
template <class T>
struct Threshold : Piecewise {
  T threshold, otherwise;
  TORCHACT_INLINE explicit Threshold(const double* p) : threshold(T(p[0])), otherwise(T(p[1])) {}
  TORCHACT_INLINE T value(T x) const { return x <= threshold ? otherwise : x; }
  TORCHACT_INLINE T derivative(T x) const { return x <= threshold ? T(0) : T(1); }
};

/// max(0, x)²; 2 max(0, x)
template <class T>
struct SquaredReLU : Smooth {
  TORCHACT_NO_PARAMETERS(SquaredReLU)
  TORCHACT_INLINE T value(T x) const {
    const T positive = at_least(x, T(0));
    return positive * positive;
  }
  TORCHACT_INLINE T derivative(T x) const { return T(2) * at_least(x, T(0)); }
};

// ---- exponential on the left, linear on the right

// Exponentials of x ≤ 0, which x is not on the right: there they are some number, or none.
template <class T>
struct LeftBounds {
  T least = unknown(kLeast<T, Reach::own>), least_of_expm1 = unknown(kLeastOfExpm1<T>);
  template <class X>
  TORCHACT_INLINE T exp(X x) const { return exp_nonpositive(x, least); }
  template <class X>
  TORCHACT_INLINE T expm1(X x) const { return expm1_nonpositive(x, least_of_expm1); }
};

/// x where x > 0, else α (exp(x) - 1)
template <class T>
struct ELU : Smooth {
  T alpha;
  LeftBounds<T> bounds;
  TORCHACT_INLINE explicit ELU(const double* p) : alpha(T(p[0])) {}
  TORCHACT_INLINE T value(T x) const {
    const T left = alpha * bounds.expm1(x);
    return x < 0 ? left : x;
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T left = alpha * bounds.exp(x);
    return x > 0 ? T(1) : left;
  }
};

/// λ times ELU, with the α and λ that keep mean 0 and variance 1 (Klambauer et al. 2017, equation 14)
template <class T>
struct SELU : Smooth {
  static constexpr double kAlpha = 1.6732632423543772848, kScale = 1.0507009873554804934;
  LeftBounds<T> bounds;
  TORCHACT_NO_PARAMETERS(SELU)
  TORCHACT_INLINE T value(T x) const {
    const T left = T(kScale * kAlpha) * bounds.expm1(x);
    return x < 0 ? left : T(kScale) * x;
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T left = T(kScale * kAlpha) * bounds.exp(x);
    return x > 0 ? T(kScale) : left;
  }
};

/// x where x > 0, else α (exp(x / α) - 1)
template <class T>
struct CELU : Smooth {
  T alpha;
  Split<T> inverse;  // exp magnifies the rounding of x / α
  T low = unknown(T(-1e30)), zero = unknown(T(0));
  LeftBounds<T> bounds;
  TORCHACT_INLINE explicit CELU(const double* p) : alpha(T(p[0])), inverse(reciprocal<T>(p[0])) {}
  TORCHACT_INLINE Split<T> scaled(T x) const {
    const Split<T> z = product(inverse, at_least(x, low));
    return {at_most(z.hi, zero), z.hi > 0 ? T(0) : z.lo};  // of a negative α the exponential is not needed
  }
  TORCHACT_INLINE T value(T x) const {
    const T left = alpha * bounds.expm1(scaled(x));
    return x < 0 ? left : x;
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T left = bounds.exp(scaled(x));
    return x > 0 ? T(1) : left;
  }
};

/// log(1 + exp(β x)) / β, and x where β x > threshold; σ(β x), and 1 there
template <class T>
struct Softplus : Smooth {
  Split<T> beta;
  T most, inverse, threshold;
  TORCHACT_INLINE explicit Softplus(const double* p)
      : beta(p[0]), most(most_of<T, Reach::own>(T(p[0]))), inverse(T(1 / p[0])), threshold(T(p[1])) {}
  // exp(-|β x|) of |x|, at most `most`
  TORCHACT_INLINE T decayed(T t) const {
    const T sign = with_sign_of(T(-1), -beta.hi);
    const Split<T> z = product(Split<T>(sign * beta.hi, sign * beta.lo), t);
    return Exponential<T, Reach::own>(z.hi, z.lo).value();
  }
  TORCHACT_INLINE T value(T x) const {
    const T z = beta.hi * x, rest = log1p_unit(decayed(bounded_magnitude(x, most))) * inverse;
    return z > threshold ? x : (z < 0 ? T(0) : x) + rest;
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T inside = clamp(x, -most, most);
    const Split<T> z = product(beta, inside);
    const Exponential<T, Reach::large> e(-at_most(z.hi, T(40)), z.hi > T(40) ? T(0) : -z.lo);
    return z.hi > threshold ? T(1) : unscaled(over_plus_one(T(1), e));
  }
};

/// log(1 + exp(x)), and x where x > threshold; σ(x), and 1 there: what Softplus is with β = 1
template <class T>
struct PlainSoftplus : Smooth {
  T threshold, zero = unknown(T(0));
  SigmoidBounds<T> bounds;
  TORCHACT_INLINE explicit PlainSoftplus(const double* p) : threshold(T(p[1])) {}
  TORCHACT_INLINE T value(T x) const {
    const T rest = log1p_unit(exp_of_minus_magnitude(x));
    return x > threshold ? x : at_least(x, zero) + rest;
  }
  TORCHACT_INLINE T derivative(T x) const { return x > threshold ? T(1) : bounds.sigmoid_of_minus(-x); }
};

// ---- gated by themselves: x G(x), where G opens from 0 to 1
//
// All but Mish have a gate with G(-x) = 1 - G(x). Most are logistic, and their value is x / (1 + odds), where the odds
// are those against G. The derivative on the right is 1 less the one at -t, with t = |x|. That has a root, where the sum
// that it is would cancel; it is written as terms of one sign, each a multiple of the distance from the root, and that is
// exact near it.

template <class T>
TORCHACT_INLINE Scaled<T> divided(Scaled<T> a, T b) {
  return {a.value / b, a.before, a.after};
}

// G(-t) and the derivative of x G(x) at -t.
template <class T>
struct Left {
  Scaled<T> gate, derivative;
};

// σ(-z) = e / (1 + e), and e sum / (1 + e)², of e = exp(-z). The rounding of e is the same above and below, where it
// counts least.
template <class T, Reach reach, bool careful>
TORCHACT_INLINE Left<T> logistic_left(Exponential<T, reach, careful> exponential, Split<T> sum) {
  const Scaled<T> e = exponential.scaled();
  const T slope = mul_add(e.value, sum.hi, e.value * sum.lo);
  return {logistic_tail(e), {slope / polynomial(unscaled(e), 1, 2, 1), e.before, e.after}};
}

// The reach of the odds against a gate of this reach.
template <Reach reach>
constexpr Reach kOdds = reach == Reach::factor ? Reach::divisor : Reach::large;

// A gate has `left`, up to the t from which on that is 0, kMost. The logistic ones have the odds too, between it on the
// left and kRight, where they are so small that the gate is open.

// σ(z), z = unit.u · (hi + lo)
template <class T, Reach reach>
struct Logistic {
  // σ(-z) (1 - z σ(z)) = e (1 - z + e) / (1 + e)² with e = exp(-z). Next to the root lies the z0 whose e0 = exp(-z0) is
  // a float32 number, and with d = z0 - z the sum is d + (e - e0) + kappa, kappa = 1 - z0 + e0.
  template <bool exact = false>
  TORCHACT_INLINE static Left<T> left(T hi, T lo = T(0), Unit<T> unit = kOne<T>, double u = 1) {
    constexpr double z0 = 1.278464496150894204466864, e0 = 0x1.1d25dp-2, kappa = 5.9589462240845635691e-8;
    const Split<T> d = difference(Split<T>(z0 / u), Split<T>(hi, lo));
    const auto e = Exponential<T, reach>(d.hi, d.lo, unit) * T(e0);
    const T rest = e.minus(T(e0)) + mul_add(d.lo, unit.u, T(kappa));
    if constexpr (exact)
      return logistic_left(e, sum(d.hi, rest));
    else
      return logistic_left(e, sum_of_product(d.hi, unit.u, rest));
  }
};

// σ(x)
template <class T, Reach reach>
struct LogisticGate {
  static constexpr T kMost = -kLeast<T, reach>, kRight = 40;
  TORCHACT_INLINE static auto odds(T x) { return Exponential<T, kOdds<reach>>(-x); }
  TORCHACT_INLINE static Left<T> left(T t) { return Logistic<T, reach>::template left<true>(t); }
};

// σ(1.702 x)
template <class T, Reach reach>
struct QuickGate {
  static constexpr double beta = 1.702;
  static constexpr T kMost = -kLeast<T, reach> / T(beta), kRight = 25;
  static constexpr Unit<T> unit = is_float<T> ? Unit<T>{T(beta), T(0x1.a1p-2), T(0x1.d4ed0e1305016p-16)}
                                              : Unit<T>{T(beta), T(0x1.a10753b438p-2), T(0x1.305015c728834p-44)};
  TORCHACT_INLINE static auto odds(T x) { return Exponential<T, kOdds<reach>, true>(-x, T(-0.0), unit); }
  TORCHACT_INLINE static Left<T> left(T t) { return Logistic<T, reach>::left(t, T(0), unit, beta); }
};

// Φ(x)
template <class T, Reach reach>
struct NormalGate {
  static constexpr T kMost = is_float<T> ? T(reach == Reach::own ? 14.85 : 20) : T(reach == Reach::own ? 39 : 54);
  TORCHACT_INLINE static Scaled<T> tail(T t) {
    const Ratio<T> r = mills_ratio(t);
    return divided(bell<T, reach>(t).times(r.numerator), r.denominator);
  }
  // t G(-t)
  TORCHACT_INLINE static Scaled<T> times_tail(T t) {
    const Ratio<T> r = mills_ratio(t);
    return divided(bell<T, reach>(t).times(product(t, r.numerator)), r.denominator);
  }
  TORCHACT_INLINE static Left<T> left(T t) {
    const Split<T> root(0.75179152469356445746);
    const Exponential<T, reach> e = bell<T, reach>(t);
    const Ratio<T> gate = mills_ratio(t), derivative = mills_slope(t);
    const Split<T> p = product(root.hi - t, derivative.numerator);
    const Split<T> numerator{mul_add(root.lo, derivative.numerator, p.hi), p.lo};
    return {divided(e.times(gate.numerator), gate.denominator), divided(e.times(numerator), derivative.denominator)};
  }
};

// σ(z), z = c t (k + t²) with c = 2 √(2/π) 0.044715 and k = 1 / 0.044715, since (1 + tanh(u)) / 2 is σ(2u)
template <class T, Reach reach>
struct TanhGate {
  static constexpr T kMost = is_float<T> ? T(reach == Reach::own ? 10.9 : 13.5) : T(reach == Reach::own ? 21.6 : 27.1);
  static constexpr T kRight = is_float<T> ? 6 : 8;
  static constexpr double c = 0.071354816272600248776, k = 22.363860002236386;
  TORCHACT_INLINE static constexpr Unit<T> unit(int sign) {
    return is_float<T> ? Unit<T>{T(sign * c), T(sign * 0x1.36ep+3), T(sign * -0x1.8aa4a22b6dec7p-11)}
                       : Unit<T>{T(sign * c), T(sign * 0x1.36d9d56d78p+3), T(sign * -0x1.5b6f6379857f9p-38)};
  }

  // z / c with the digits that its exponential needs.
  TORCHACT_INLINE static Split<T> cubic(T t) {
    if constexpr (TORCHACT_HAS_FMA) {
      // A multiple of what the greatest factor is rounded to, so that it can be subtracted from any.
      constexpr T k_hi = is_float<T> ? T(1465638.0 / 65536) : T(0x1.65d25edd9ed8p4);
      const T factor = mul_add(t, t, k_hi);
      const T rest = mul_add(t, t, k_hi - factor) + T(k - double(k_hi));
      const T z = t * factor;
      return {z, mul_add(t, rest, mul_add(t, factor, -z))};
    } else {
      return Split<T>(double(t) * (k + double(t) * double(t)));
    }
  }

  TORCHACT_INLINE static auto odds(T x) {
    const Split<T> z = cubic(x);
    return Exponential<T, kOdds<reach>, true>(z.hi, z.lo, unit(-1));
  }

  // e (1 + e - t z') / (1 + e)² with e = exp(-z). Next to the root lies the t0 whose e0 = exp(-z0) is a float32 number.
  // The sum is (e - e0) + (t0 z0' - t z') + kappa, of which the second is c (t0 - t) (k + 3 (t² + t t0 + t0²)).
  TORCHACT_INLINE static Left<T> left(T t) {
    constexpr double root = 0.7524614402182987760484791, cubic_of_root = 17.25398463345255844901394,
                     e0 = 0x1.2af64ep-2, kappa = -4.4654233519394638125e-8;
    const Split<T> t0(root), distance = difference(Split<T>(cubic_of_root), cubic(t));
    const auto e = Exponential<T, reach, true>(distance.hi, distance.lo, unit(1)) * T(e0);
    const T factor = polynomial(t, c * (k + 3 * root * root), 3 * c * root, 3 * c);
    const T rest = e.minus(T(e0)) + mul_add(t0.lo, factor, T(kappa));
    return logistic_left(e, sum_of_product(t0.hi - t, factor, rest));
  }
};

// The activations that gates make.
template <class T, template <class, Reach> class Gate>
struct SelfGated : Smooth {
  using G = Gate<T, Reach::own>;
  T most = unknown(G::kMost);
  TORCHACT_NO_PARAMETERS(SelfGated)
  TORCHACT_INLINE T derivative(T x) const {
    const Scaled<T> left = G::left(at_most(absolute(x), most)).derivative;
    return mul_add(x < 0 ? left.value : -left.value, left.after, x < 0 ? T(0) : T(1));
  }
};

template <class T, template <class, Reach> class Gate>
struct LogisticSelfGated : SelfGated<T, Gate> {
  using typename SelfGated<T, Gate>::G;
  T right = unknown(G::kRight);
  using SelfGated<T, Gate>::SelfGated;
  TORCHACT_INLINE T value(T x) const {
    const T inside = clamp(x, -this->most, right);
    return x > right ? x : unscaled(over_plus_one(inside, G::odds(inside)));
  }
};

/// x σ(x); σ(x) (1 + x σ(-x))
template <class T>
struct SiLU : LogisticSelfGated<T, LogisticGate> {
  using LogisticSelfGated<T, LogisticGate>::LogisticSelfGated;
};

/// x σ(1.702 x)
template <class T>
struct QuickGELU : LogisticSelfGated<T, QuickGate> {
  using LogisticSelfGated<T, QuickGate>::LogisticSelfGated;
};

/// x σ(z), z = 2 √(2/π) (x + 0.044715 x³); σ(z) (1 + x z' σ(-z))
template <class T>
struct GELUTanh : LogisticSelfGated<T, TanhGate> {
  using LogisticSelfGated<T, TanhGate>::LogisticSelfGated;
};

/// x Φ(x) = max(0, x) - t Φ(-t); Φ(x) + x φ(x), with φ(x) = exp(-x²/2) / √(2π)
template <class T>
struct GELU : SelfGated<T, NormalGate> {
  using typename SelfGated<T, NormalGate>::G;
  using SelfGated<T, NormalGate>::SelfGated;
  T minus_zero = unknown(T(-0.0));
  TORCHACT_INLINE T value(T x) const {
    const T t = bounded_magnitude(x, G::kMost);
    const Scaled<T> tail = G::times_tail(t);
    return mul_add(-tail.value, tail.after, at_least(x, minus_zero));
  }
};

// As factors of other numbers, gates have to be followed on the left until the product is 0, on the right until they
// are 1.

// |x|, but at most that
template <class T>
TORCHACT_INLINE T magnitude(T x, bool left, T most) {
  return at_most(absolute(x), left ? most : T(0.4) * most);
}

// The gate or the derivative at x, of that at -|x|
template <class T>
TORCHACT_INLINE Scaled<T> opened(bool left, Scaled<T> tail) {
  return {left ? tail.value : T(1) - tail.value, tail.before, tail.after};
}

// x σ(z) with z = β x.
template <class T>
struct SwishOf {
  using L = Logistic<T, Reach::factor>;
  T side;      // less than 0 where z is
  T x;         // on the left at most what makes the gate 0
  Split<T> z;  // |z|, within what matters
  // `most` is 200 / |β|, or what it is in float64.
  TORCHACT_INLINE SwishOf(T x, Split<T> beta, T most)
      : SwishOf(x, beta, with_sign_of(T(1), beta.hi) * x, magnitude(x, with_sign_of(T(1), beta.hi) * x < 0, most)) {}
  TORCHACT_INLINE SwishOf(T x, Split<T> beta, T side, T t)
      : side(side), x(side < 0 ? with_sign_of(t, x) : x), z(product(beta, with_sign_of(t, beta.hi))) {}

  TORCHACT_INLINE Partials<T> partials(T factor) const {
    const Left<T> l = L::left(z.hi, z.lo);
    return {times(x, opened(side < 0, l.gate)), times(factor, opened(side < 0, l.derivative))};
  }
};

// v g / (1 + odds)
template <class T, bool careful>
TORCHACT_INLINE T gated(T v, T g, Exponential<T, Reach::divisor, careful> odds) {
  return (v * odds.before) / odds.plus_one() * g * odds.after;
}

// x σ(β x). Beyond `most` on the left it is 0, and where β x > 40 it is x.
template <class T>
TORCHACT_INLINE T swish(T x, Split<T> beta, T most) {
  const T inside = clamp(x, -most, most);
  const Split<T> z = product(beta, inside);
  return z.hi > T(40) ? x : gated(inside, T(1), Exponential<T, Reach::divisor>(-at_most(z.hi, T(40)), -z.lo));
}

/// x σ(β x); σ(z) (1 + z σ(-z)) with z = β x
template <class T>
struct Swish : Smooth {
  Split<T> beta;
  T most;
  TORCHACT_INLINE explicit Swish(const double* p) : beta(p[0]), most(most_of<T, Reach::factor>(T(p[0]))) {}
  TORCHACT_INLINE SwishOf<T> of(T x) const { return {x, beta, most}; }
  TORCHACT_INLINE T value(T x) const { return swish(x, beta, most); }
  TORCHACT_INLINE T derivative(T x) const { return of(x).partials(T(1)).by_second; }
};

/// x tanh(log(1 + exp(x))) = x n / (n + 2) with n = w (w + 2), w = exp(x)
template <class T>
struct Mish : Smooth {
  // Beyond `most` it is x; beyond `right` its derivative is 1.
  T least = unknown(kLeast<T, Reach::own>), most = unknown(is_float<T> ? T(20) : T(40)),
    right = unknown(is_float<T> ? T(12) : T(22));
  TORCHACT_NO_PARAMETERS(Mish)
  TORCHACT_INLINE T value(T x) const {
    const T inside = clamp(x, least, most);
    const Exponential<T, Reach::large> g(-inside);
    const T e = mul_add(g.power, g.q, g.power), h = e / (e + e + kDown<T>);
    const T d = mul_add(g.power, g.q, mul_add(-kDown<T>, h, smaller(g.power, kDown<T>))) + larger(g.power, kDown<T>);
    return x > most ? x : inside / d * kDown<T>;
  }
  // w s / (n + 2)² with s = (w + 2) (n + 2) + 4 x (1 + w). Next to its root lies the x0 whose w0 = exp(x0) is a float32
  // number, and with d = x - x0, s is (w - w0) (w² + w (w0 + 4) + w0² + 4 w0 + 6 + 4 x0) + 4 d (1 + w) + kappa. Right of
  // -0.4 less is lost in ½ + (n² - 4 + 8 x w (1 + w)) / (2 (n + 2)²).
  TORCHACT_INLINE T derivative(T x) const {
    constexpr double x0 = -1.192431223676840315087037, w0 = 0x1.36c42p-2, kappa = -5.8705570155057439527e-8;
    const T inside = clamp(x, least, right);
    const Split<T> d = difference(Split<T>(-x0), Split<T>(-inside, T(0)));
    const Exponential<T, Reach::own> g(d.hi, d.lo), exponential = g * T(w0);
    const T w = exponential.value(), n = w * (w + T(2));
    // The sum is times w0, and w is g w0.
    const T factor = polynomial(w, w0 * (w0 * w0 + 4 * w0 + 6 + 4 * x0), w0 * (w0 + 4), w0);
    const T slope = mul_add(T(4 * w0), w, T(4 * w0)), rest = mul_add(d.lo, slope, T(w0 * kappa));
    const T sum = mul_add(d.hi, slope, mul_add(exponential.minus(T(w0)), factor, rest));
    const T excess = mul_add(n - T(2), n + T(2), T(8) * inside * mul_add(w, w, w));
    const T square = polynomial(w, 4, 8, 8, 4, 1);  // (n + 2)²
    const bool flat = inside > T(-0.4);
    const T numerator = flat ? T(0.5) * excess : g.times(sum).value;
    return mul_add(numerator / square, flat ? T(1) : g.after, flat ? T(0.5) : T(0));
  }
};

/// x (x + 3) / 6 between -3 and 3, 0 left of it, x right of it
template <class T>
struct Hardswish : Smooth {
  T least = unknown(T(-3)), zero = unknown(T(0)), most = unknown(T(6));
  Divisor<T> six{T(6)};
  TORCHACT_NO_PARAMETERS(Hardswish)
  TORCHACT_INLINE T value(T x) const {
    const T gate = six.under(clamp(x + T(3), zero, most));
    return at_least(x, least) * gate;  // -∞ · 0 would be NaN
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T inside = (T(2) * x + T(3)) * T(1.0 / 6);
    return x <= T(-3) ? T(0) : x >= T(3) ? T(1) : inside;
  }
};

// ---- shrinkage

/// x - tanh(x); tanh²
template <class T>
struct Tanhshrink : Smooth {
  TORCHACT_NO_PARAMETERS(Tanhshrink)
  // Up to it by a series, in which nothing cancels; 9e-9 and 1.1e-17.
  static constexpr T kNear = is_float<T> ? T(1.03) : T(0.9);
  TORCHACT_INLINE static T near_zero(T t) {
    constexpr Split<T> third = is_float<T> ? Split<T>(1.0 / 3) : Split<T>(T(1.0 / 3), T(0x1p-54 / 3));
    const Split<T> square = product(t, t);
    const T w = square.hi, cube = t * w, lost = mul_add(t, square.lo, mul_add(t, w, -cube));
    T a;
    if constexpr (is_float<T>)
      a = polynomial(w, -0.1333331130914, 0.05396286370073, -0.02182415510623, 0.008678363660672, -0.003173627456438,
                     0.0008966244373725, -0.0001344438734931);
    else
      a = polynomial(w, -0.13333333333333125, 0.053968253968061854, -0.021869488529117746, 0.008863235394461754,
                     -0.0035921264609381264, 0.0014558223682358032, -0.0005899642018870131, 0.00023889208475862337,
                     -9.626998679676176e-5, 3.7988668479130404e-5, -1.4022458217563985e-5, 4.404824387949487e-6,
                     -9.985213099426998e-7, 1.168957401805485e-7);
    const T p = mul_add(w, a, mul_add(square.lo, a, third.lo));
    return mul_add(cube, third.hi, mul_add(lost, third.hi, cube * p));
  }
  TORCHACT_INLINE T value(T x) const {
    const T t = absolute(x), e = Exponential<T, Reach::normal>(T(-2) * bounded_magnitude(x, T(25))).value();
    return with_sign_of(t < kNear ? near_zero(t) : (t - T(1)) + T(2) * e / (T(1) + e), x);
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T t = absolute(x), e = Exponential<T, Reach::normal>(T(-2) * bounded_magnitude(x, T(25))).value();
    const T rest = near_zero(t), y = t - rest, lost = (t - y) - rest, square = y * y;
    const T small = square + mul_add(y + y, lost, mul_add(y, y, -square));
    return t < kNear ? small : mul_add(T(-4), e / mul_add(e, e + T(2), T(1)), T(1));
  }
};

/// x - λ where x > λ, x + λ where x < -λ, else 0
template <class T>
struct Softshrink : Piecewise {
  T lambd;
  TORCHACT_INLINE explicit Softshrink(const double* p) : lambd(T(p[0])) {}
  TORCHACT_INLINE T value(T x) const { return x > lambd ? x - lambd : x < -lambd ? x + lambd : x * T(0); }
  TORCHACT_INLINE T derivative(T x) const { return x >= -lambd && x <= lambd ? T(0) : T(1); }
};

/// x where |x| > λ, else 0
template <class T>
struct Hardshrink : Piecewise {
  T lambd;
  TORCHACT_INLINE explicit Hardshrink(const double* p) : lambd(T(p[0])) {}
  TORCHACT_INLINE T value(T x) const { return x >= -lambd && x <= lambd ? T(0) : x; }
  TORCHACT_INLINE T derivative(T x) const { return x >= -lambd && x <= lambd ? T(0) : T(1); }
};

// ---- bell and waves

/// exp(-x²); -2 x exp(-x²)
template <class T>
struct Gaussian : Smooth {
  T most = unknown(is_float<T> ? T(10.5) : T(27.6)), least = -most;  // beyond them it is 0
  TORCHACT_NO_PARAMETERS(Gaussian)
  TORCHACT_INLINE T inside(T x) const { return clamp(x, least, most); }
  TORCHACT_INLINE static Scaled<T> bell(T x) {
    constexpr Unit<T> minus_one{T(-1), -kOne<T>.ln2_hi, -kOne<T>.ln2_lo};
    const Split<T> square = product(x, x);
    return Exponential<T, Reach::own>(square.hi, square.lo, minus_one).scaled();
  }
  TORCHACT_INLINE T value(T x) const { return unscaled(bell(inside(x))); }
  TORCHACT_INLINE T derivative(T x) const { return times(T(-2) * inside(x), bell(inside(x))); }
};

// The sine and cosine of frequency · x. One angle is as good as another where their spacing exceeds a period, so angles
// that overflow are the greatest number.
template <class T>
struct Phase {
  T angle;
  bool finite;  // what was multiplied
  TORCHACT_INLINE Phase(T frequency, T x) : angle(frequency * x), finite(absolute(x) <= kGreatest<T>) {}
  TORCHACT_INLINE bool fits() const { return absolute(angle) <= kMostAngle; }
  TORCHACT_INLINE Wave fast() const { return wave(angle); }
  TORCHACT_INLINE RoundedWave rounded() const { return {angle}; }
  TORCHACT_INLINE Wave exact() const {
    const double inside = finite ? clamp(angle, -kGreatest<T>, kGreatest<T>) : angle;
    return {::sin(inside), ::cos(inside)};
  }
};

// Formulas of waves say of operands in their own type whether the angle fits.
TORCHACT_INLINE double most_of_wave(double frequency) { return kMostAngle / absolute(frequency); }

/// sin(ω x); ω cos(ω x)
template <class T>
struct Sine : Waves {
  T omega, most;
  TORCHACT_INLINE explicit Sine(const double* p) : omega(T(p[0])), most(T(most_of_wave(p[0]))) {}
  template <class N>
  TORCHACT_INLINE bool fits(N x) const { return absolute(x) <= N(most); }
  TORCHACT_INLINE Phase<T> phase(T x) const { return {omega, x}; }
  template <class W>
  TORCHACT_INLINE T value(T, const Phase<T>&, W w) const { return w.sine(); }
  template <class W>
  TORCHACT_INLINE T derivative(T, const Phase<T>&, W w) const { return omega * w.cosine(); }
};

// sin(a) / a; near 0 by the caller's sine it is 1 to rounding.
TORCHACT_INLINE double sinc(double angle, double sine) { return absolute(angle) < 1e-8 ? 1.0 : sine / angle; }

// x + sin²(α x) / α, where x sin sinc does not overflow for any α.
template <class T>
TORCHACT_INLINE T snake(T x, T, const Phase<T>& p, Wave w) {
  return x + x * (w.sine() * sinc(p.angle, w.sine()));
}

template <class T>
TORCHACT_INLINE T snake(T x, T inverse, const Phase<T>&, RoundedWave w) {
  return mul_add(w.square_of_sine(), inverse, x);
}

/// x + sin²(α x) / α; (sin + cos)², since 1 + sin(2 α x) would cancel
template <class T>
struct Snake : Waves {
  T alpha, inverse, most;
  TORCHACT_INLINE explicit Snake(const double* p)
      : alpha(T(p[0])), inverse(clamp(T(1 / p[0]), -kGreatest<T>, kGreatest<T>)), most(T(most_of_wave(p[0]))) {}
  template <class N>
  TORCHACT_INLINE bool fits(N x) const { return absolute(x) <= N(most); }
  TORCHACT_INLINE Phase<T> phase(T x) const { return {alpha, x}; }
  template <class W>
  TORCHACT_INLINE T value(T x, const Phase<T>& p, W w) const { return snake(x, inverse, p, w); }
  template <class W>
  TORCHACT_INLINE T derivative(T, const Phase<T>&, W w) const { return w.square_of_sum(); }
};

// ---- the step, with its surrogates' derivatives; NaN counts as -∞

/// 1 where x ≥ 0, else 0; 0
template <class T>
struct BinaryStep : Piecewise {
  TORCHACT_NO_PARAMETERS(BinaryStep)
  TORCHACT_INLINE T value(T x) const { return x >= 0 ? T(1) : T(0); }
  TORCHACT_INLINE T derivative(T) const { return T(0); }
};

/// 1 for finite x
template <class T>
struct BinaryStepStraightThrough : BinaryStep<T> {
  static constexpr bool selects = false;
  using BinaryStep<T>::BinaryStep;
  TORCHACT_INLINE T derivative(T x) const { return absolute(x) < T(kInfinity) ? T(1) : T(0); }
};

/// σ(x) σ(-x)
template <class T>
struct BinaryStepSigmoid : BinaryStep<T> {
  static constexpr bool selects = false;
  using BinaryStep<T>::BinaryStep;
  TORCHACT_INLINE T derivative(T x) const {
    const Exponential<T, Reach::own, true> exponential(-bounded_magnitude(x, -kLeast<T, Reach::own>));
    const Scaled<T> scaled = exponential.scaled();
    const T lost = mul_add(exponential.power, exponential.q, exponential.power - scaled.value);
    const T e = unscaled(scaled), factor = e + T(2), square = mul_add(e, factor, T(1));
    const T rest = mul_add(e, factor, T(1) - square) + lost * scaled.after * (e + factor);
    return quotient(Split<T>(scaled.value, lost), Split<T>(square, rest)) * scaled.after;
  }
};

/// 1 / (1 + (π x)²)
template <class T>
struct BinaryStepAtan : BinaryStep<T> {
  static constexpr bool selects = false;
  using BinaryStep<T>::BinaryStep;
  TORCHACT_INLINE T derivative(T x) const {
    constexpr Split<T> pi_squared(9.8696044010893586188);
    constexpr T most = is_float<T> ? T(0x1p40) : T(0x1p400), down = is_float<T> ? T(0x1p-64) : T(0x1p-512);
    const T t = at_most(absolute(x), is_float<T> ? T(0x1p100) : T(0x1p600));
    const bool large = t > most;  // its square could overflow, and 1 does not count beside it
    const T factor = large ? down : T(1), inside = t * factor;
    const Split<T> square = product(inside, inside);
    const T rest = mul_add(pi_squared.hi, square.lo, pi_squared.lo * square.hi);
    const T inverse = T(1) / mul_add(pi_squared.hi, square.hi, large ? rest : T(1) + rest);
    return x == x ? (inverse * factor) * factor : T(0);
  }
};

/// 1 / (1 + |x|)²
template <class T>
struct BinaryStepFastSigmoid : BinaryStep<T> {
  static constexpr bool selects = false;
  using BinaryStep<T>::BinaryStep;
  TORCHACT_INLINE T derivative(T x) const { return x == x ? square_of_inverse(absolute(x)) : T(0); }
};

/// max(0, 1 - |x|)
template <class T>
struct BinaryStepTriangular : BinaryStep<T> {
  static constexpr bool selects = false;
  using BinaryStep<T>::BinaryStep;
  TORCHACT_INLINE T derivative(T x) const { return absolute(x) < T(1) ? T(1) - absolute(x) : T(0); }
};

// ---- of input and learnable parameter

/// x where x > 0, else w x; and min(0, x)
template <class T>
struct PReLU : Piecewise {
  TORCHACT_NO_PARAMETERS(PReLU)
  TORCHACT_INLINE T value(T x, T weight) const { return x > 0 ? x : weight * x; }
  TORCHACT_INLINE Partials<T> partials(T x, T weight) const {
    return {x > 0 ? T(1) : weight, x > 0 ? T(0) : x};
  }
};

/// x σ(β x); as of Swish, and x² σ(β x) σ(-β x)
template <class T>
struct LearnableSwish : Smooth {
  TORCHACT_NO_PARAMETERS(LearnableSwish)
  TORCHACT_INLINE static SwishOf<T> of(T x, T beta) { return {x, Split<T>(beta, T(0)), most_of<T, Reach::factor>(beta)}; }
  TORCHACT_INLINE T value(T x, T beta) const { return swish(x, Split<T>(beta, T(0)), most_of<T, Reach::factor>(beta)); }
  TORCHACT_INLINE Partials<T> partials(T x, T beta) const {
    const T t = at_most(absolute(x), most_of<T, Reach::factor>(beta));
    const Split<T> z = product(absolute(beta), t);
    const Scaled<T> slope = logistic_slope(Exponential<T, Reach::factor>(-z.hi, -z.lo).scaled());
    return {of(x, beta).partials(T(1)).by_second, ((t * slope.before) * slope.value) * t * slope.after};
  }
};

/// x + sin²(α x) / α; as of Snake, and x sin(2 α x) / α - sin²(α x) / α²
template <class T>
struct LearnableSnake : Waves {
  TORCHACT_NO_PARAMETERS(LearnableSnake)
  template <class N>
  TORCHACT_INLINE bool fits(N x, N alpha) const { return absolute(x * alpha) <= N(kMostAngle); }
  TORCHACT_INLINE Phase<T> phase(T x, T alpha) const { return {alpha, x}; }
  template <class W>
  TORCHACT_INLINE T value(T x, T alpha, const Phase<T>& p, W w) const {
    return snake(x, clamp(T(1) / alpha, -kGreatest<T>, kGreatest<T>), p, w);
  }
  TORCHACT_INLINE Partials<T> partials(T x, T, const Phase<T>& p, Wave w) const {
    const T ratio = sinc(p.angle, w.sine());
    return {T(w.square_of_sum()), T(x * (x * (ratio * (2 * w.cosine() - ratio))))};
  }
};

// ---- gated units, v φ(g)

/// v σ(g); σ(g), and v σ(g) σ(-g)
template <class T>
struct GLU : Smooth {
  T most = unknown(-kLeast<T, Reach::divisor>), right = unknown(T(40));
  TORCHACT_NO_PARAMETERS(GLU)
  TORCHACT_INLINE T value(T v, T g) const {
    return gated(v, T(1), Exponential<T, Reach::divisor>(-clamp(g, -most, right)));
  }
  TORCHACT_INLINE Partials<T> partials(T v, T g) const {
    static_assert(kLeast<T, Reach::factor> == kLeast<T, Reach::divisor>);
    const Scaled<T> e = Exponential<T, Reach::factor>(-at_most(absolute(g), most)).scaled();
    const T plain = unscaled(e);
    return {(g < 0 ? plain : T(1)) / (T(1) + plain), times(v, logistic_slope(e))};
  }
};

/// v max(0, g)
template <class T>
struct ReGLU : Smooth {
  TORCHACT_NO_PARAMETERS(ReGLU)
  TORCHACT_INLINE T value(T v, T g) const { return v * at_least(g, T(0)); }
  TORCHACT_INLINE Partials<T> partials(T v, T g) const {
    return {at_least(g, T(0)), v * (g > 0 ? T(1) : T(0))};
  }
};

/// v g G(g); g G(g), and v (g G(g))'
template <class T, template <class, Reach> class Gate>
struct GatedBy : Smooth {
  using G = Gate<T, Reach::factor>;
  T least = unknown(-G::kMost), most = unknown(T(0.4) * G::kMost);  // what matters of g, and on the right for the gate
  TORCHACT_NO_PARAMETERS(GatedBy)
  TORCHACT_INLINE Partials<T> partials(T v, T g) const {
    const T x = at_least(g, least);
    const Left<T> left = G::left(absolute(at_most(x, most)));
    return {times(x, opened(x < 0, left.gate)), times(v, opened(x < 0, left.derivative))};
  }
};

template <class T, template <class, Reach> class Gate>
struct LogisticGatedBy : GatedBy<T, Gate> {
  using typename GatedBy<T, Gate>::G;
  T right = unknown(G::kRight);
  using GatedBy<T, Gate>::GatedBy;
  TORCHACT_INLINE T value(T v, T g) const {
    const T inside = at_least(g, this->least);
    return gated(v, inside, G::odds(at_most(inside, right)));
  }
};

template <class T>
struct GEGLU : GatedBy<T, NormalGate> {
  using typename GatedBy<T, NormalGate>::G;
  using GatedBy<T, NormalGate>::GatedBy;
  // In an order that neither overflows nor rounds to a subnormal number before the end.
  TORCHACT_INLINE T value(T v, T g) const {
    const T x = at_least(g, this->least), t = absolute(at_most(x, this->most));
    const Scaled<T> gate = opened(x < 0, G::tail(t));
    const bool large = t > T(1);
    return times(large ? v : T(1), Scaled<T>{(large ? x : v * x) * gate.value, gate.before, gate.after});
  }
};

template <class T>
struct GEGLUTanh : LogisticGatedBy<T, TanhGate> {
  using LogisticGatedBy<T, TanhGate>::LogisticGatedBy;
};

/// v g σ(g), what SwiGLU is without a limit
template <class T>
struct PlainSwiGLU : LogisticGatedBy<T, LogisticGate> {
  using LogisticGatedBy<T, LogisticGate>::LogisticGatedBy;
};

/// (v + o) g σ(α g), v within ± limit and g at most limit, beyond which derivatives are 0
template <class T>
struct SwiGLU : Smooth {
  Swish<T> swish;
  T limit, offset, low, high;  // g within low and high, where the gate is not 0
  TORCHACT_INLINE explicit SwiGLU(const double* p)
      : swish(p),
        limit(T(p[1])),
        offset(T(p[2])),
        low(p[0] > 0 ? -swish.most : T(-kInfinity)),
        high(p[0] > 0 ? limit : at_most(swish.most, limit)) {}
  TORCHACT_INLINE T value(T v, T g) const {
    const T inside = clamp(g, low, high);
    const Split<T> z = product(swish.beta, clamp(inside, -swish.most, swish.most));
    return gated(clamp(v, -limit, limit) + offset, inside, Exponential<T, Reach::divisor>(-at_most(z.hi, T(40)), -z.lo));
  }
  TORCHACT_INLINE Partials<T> partials(T v, T g) const {
    const Partials<T> p = swish.of(at_most(g, limit)).partials(clamp(v, -limit, limit) + offset);
    return {absolute(v) > limit ? T(0) : p.by_first, g > limit ? T(0) : p.by_second};
  }
};

/// v g
template <class T>
struct Bilinear : Smooth {
  TORCHACT_NO_PARAMETERS(Bilinear)
  TORCHACT_INLINE T value(T v, T g) const { return v * g; }
  TORCHACT_INLINE Partials<T> partials(T v, T g) const {
    return {g, v};
  }
};

// A shorter formula that stands for another where `applies` to its parameters.
template <template <class> class Formula>
struct Special {
  static constexpr bool exists = false;
};
template <>
struct Special<Softplus> {
  static constexpr bool exists = true;
  template <class T>
  using Formula = PlainSoftplus<T>;
  static bool applies(const double* p) { return p[0] == 1; }
};
template <>
struct Special<SwiGLU> {
  static constexpr bool exists = true;
  template <class T>
  using Formula = PlainSwiGLU<T>;
  static bool applies(const double* p) { return p[0] == 1 && p[1] == kInfinity && p[2] == 0; }
};

// ---- normalised over a dimension

/// With s = x, or -x for softmin, and m = max s: y = exp(s - m) / Σ exp(s - m), or of log softmax s - m - log Σ exp(s - m).
/// Its gradient is y (g - Σ g y), of softmin the negative of this, and of log softmax g - exp(y) Σ g.
template <class T, Normalised kind>
struct Softmax {
  static TORCHACT_INLINE T signed_input(T x) { return kind == Normalised::softmin ? -x : x; }

  // What the gradient sums up, and the gradient by that total.
  static TORCHACT_INLINE T term(T g, T y) { return kind == Normalised::log_softmax ? g : g * y; }
  static TORCHACT_INLINE T gradient(T g, T y, T total, T least = kLeast<T, Reach::own>, T most = T(0)) {
    if constexpr (kind == Normalised::log_softmax) return g - exp_nonpositive(at_most(y, most), least) * total;
    return kind == Normalised::softmin ? y * (total - g) : y * (g - total);
  }
};

#undef TORCHACT_NO_PARAMETERS

}  // namespace torchact::TORCHACT_CAPABILITY::formulas
