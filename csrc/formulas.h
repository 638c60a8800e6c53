// The value and the derivative of every activation, for host and device; what each is called is in activations.h.
//
// A formula is made from the activation's parameters and takes the pre-activation x; where the backward pass is given the
// output y instead, its derivative takes that. Functions of two tensors have partial derivatives. No finite number gives
// NaN. At a kink the derivative is torch's, mostly that of the left. In float32 results are at most 4 units in the last
// place off, relative to themselves also near a zero, and in float64 a few.
#pragma once

#include "math.h"

namespace torchact::TORCHACT_CAPABILITY::formulas {

using namespace math;

// What formulas have in common.
struct Smooth {
  static constexpr bool wide = false;     // whether float32 numbers have to be computed in float64
  static constexpr bool selects = false;  // whether a derivative of 0 makes a gradient 0, whatever it multiplies
  static constexpr bool waves = false;    // whether it takes angles, and answers only those that fit
};

// The derivatives of a function of two tensors.
template <class T>
struct Partials {
  T by_first, by_second;
};

struct Piecewise : Smooth {
  static constexpr bool selects = true;
};

struct Waves : Smooth {
  static constexpr bool wide = true;
  static constexpr bool waves = true;
};

#define TORCHACT_NO_PARAMETERS(Formula) TORCHACT_INLINE explicit Formula(const double*) {}

// ---- S-shaped

/// σ(x) = 1 / (1 + exp(-x)); σ' = y (1 - y)
template <class T>
struct Sigmoid : Smooth {
  TORCHACT_NO_PARAMETERS(Sigmoid)
  TORCHACT_INLINE T value(T x) const { return sigmoid(x); }
  TORCHACT_INLINE T derivative(T y) const { return y * (T(1) - y); }
};

/// tanh(x); tanh' = 1 - y²
template <class T>
struct Tanh : Smooth {
  TORCHACT_NO_PARAMETERS(Tanh)
  TORCHACT_INLINE T value(T x) const { return math::tanh(x); }
  TORCHACT_INLINE T derivative(T y) const { return T(1) - y * y; }
};

/// log σ(x) = min(x, 0) - log(1 + exp(-|x|)); σ(-x)
template <class T>
struct LogSigmoid : Smooth {
  TORCHACT_NO_PARAMETERS(LogSigmoid)
  TORCHACT_INLINE T value(T x) const { return at_most(x, T(0)) - log1p_unit(exp_nonpositive(-absolute(x))); }
  TORCHACT_INLINE T derivative(T x) const { return sigmoid(-x); }
};

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
    const T d = T(1) + absolute(x);
    return T(1) / d / d;  // d² could overflow
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
  TORCHACT_INLINE T value(T x) const { return clamp(x + T(3), T(0), T(6)) / T(6); }
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

/// x where x > 0, else α (exp(x) - 1)
template <class T>
struct ELU : Smooth {
  T alpha;
  TORCHACT_INLINE explicit ELU(const double* p) : alpha(T(p[0])) {}
  TORCHACT_INLINE T value(T x) const {
    const T left = alpha * expm1_nonpositive(at_most(x, T(0)));
    return x > 0 ? x : left;
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T left = alpha * exp_nonpositive(at_most(x, T(0)));
    return x > 0 ? T(1) : left;
  }
};

/// λ times ELU, with the α and λ that keep mean 0 and variance 1 (Klambauer et al. 2017, equation 14)
template <class T>
struct SELU : Smooth {
  static constexpr double kAlpha = 1.6732632423543772848, kScale = 1.0507009873554804934;
  TORCHACT_NO_PARAMETERS(SELU)
  TORCHACT_INLINE T value(T x) const {
    const T left = T(kScale * kAlpha) * expm1_nonpositive(at_most(x, T(0)));
    return x > 0 ? T(kScale) * x : left;
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T left = T(kScale * kAlpha) * exp_nonpositive(at_most(x, T(0)));
    return x > 0 ? T(kScale) : left;
  }
};

/// x where x > 0, else α (exp(x / α) - 1)
template <class T>
struct CELU : Smooth {
  T alpha;
  Split<T> inverse;  // exp magnifies the rounding of x / α
  TORCHACT_INLINE explicit CELU(const double* p) : alpha(T(p[0])), inverse(1 / p[0]) {}
  TORCHACT_INLINE Split<T> scaled(T x) const {
    const Split<T> z = product(inverse, clamp(x, T(-1e30), T(0)));
    return {at_most(z.hi, T(0)), z.hi > 0 ? T(0) : z.lo};  // of a negative α the exponential is not needed
  }
  TORCHACT_INLINE T value(T x) const {
    const T left = alpha * expm1_nonpositive(scaled(x));
    return x > 0 ? x : left;
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T left = exp_nonpositive(scaled(x));
    return x > 0 ? T(1) : left;
  }
};

/// log(1 + exp(β x)) / β, and x where β x > threshold; σ(β x), and 1 there
template <class T>
struct Softplus : Smooth {
  Split<T> beta;
  T inverse, threshold;
  TORCHACT_INLINE explicit Softplus(const double* p) : beta(p[0]), inverse(T(1 / p[0])), threshold(T(p[1])) {}
  TORCHACT_INLINE Split<T> logit(T x) const { return product(beta, clamp(x, T(-1e30), T(1e30))); }
  TORCHACT_INLINE static T exp_of_minus_magnitude(Split<T> z) {
    return exp_nonpositive(Split<T>(-absolute(z.hi), z.hi > 0 ? -z.lo : z.lo));
  }
  TORCHACT_INLINE T value(T x) const {
    const Split<T> z = logit(x);
    const T rest = log1p_unit(exp_of_minus_magnitude(z)) * inverse;
    return z.hi > threshold ? x : (z.hi > 0 ? x : T(0)) + rest;
  }
  TORCHACT_INLINE T derivative(T x) const {
    const Split<T> z = logit(x);
    return z.hi > threshold ? T(1) : sigmoid_from(z.hi, exp_of_minus_magnitude(z));
  }
};

// ---- gated by themselves
//
// Their derivatives have a root x0 left of 0, where the sum that they are cancels. In float32 it is (x - x0) P(x - x0)
// there, within 0.4, with x - x0 in two parts of which the first is exact (Sterbenz).

template <class T, class... Coefficients>
TORCHACT_INLINE Scaled<T> or_by_root(T scaled, Split<T> x, double root, Coefficients... coefficients) {
  if constexpr (is_float<T>) {
    const Split<T> x0(root);
    const T d = (x.hi - x0.hi) + (x.lo - x0.lo);
    return {absolute(d) < T(0.4) ? d * kUpFactor<T> * polynomial(d, coefficients...) : scaled};
  } else {
    return {scaled};
  }
}

// The parts of z σ(z), of z = z.hi + z.lo.
template <class T>
struct SelfGated {
  Split<T> z;
  Scaled<T> scaled;  // exp(-|z|)
  T e;
  TORCHACT_INLINE explicit SelfGated(Split<T> z)
      : z(z),
        scaled(exp_scaled(Split<T>(-absolute(z.hi), z.hi > 0 ? -z.lo : z.lo))),
        e(scaled.up * kDownFactor<T>) {}

  // σ(z)
  TORCHACT_INLINE Scaled<T> gate() const { return gate_from(z.hi, scaled); }

  // (z σ(z))' = σ(z) (1 + z σ(-z)); right of 0 both factors are multiplied by exp(-z).
  TORCHACT_INLINE Scaled<T> derivative() const {
    const T inside = clamp(z.hi, T(-2000), T(2000)), d = T(1) + e;
    const T right = d + inside * e, left = (T(1) + inside) + e;
    return or_by_root((z.hi < 0 ? scaled.up : kUpFactor<T>) / (d * d) * (z.hi < 0 ? left : right), z, -1.2784645427610737951, 0.2178117059, 0.1466487971,
                      0.01887477145, -0.01522268492, -0.006605254675, 0.0001275573279, 0.0007852362448,
                      0.0001763572216);
  }

  // σ(z) σ(-z)
  TORCHACT_INLINE Scaled<T> slope() const {
    const T d = T(1) + e;
    return {scaled.up / (d * d)};
  }
};

/// x σ(β x)
template <class T>
struct Swish : Smooth {
  Split<T> beta;
  TORCHACT_INLINE explicit Swish(const double* p) : Swish(p[0]) {}
  TORCHACT_INLINE explicit Swish(double beta) : beta(beta) {}
  TORCHACT_INLINE SelfGated<T> of(T x) const { return SelfGated<T>(product(beta, clamp(x, T(-1e30), T(1e30)))); }
  TORCHACT_INLINE T value(T x) const { return times(x, of(x).gate()); }
  TORCHACT_INLINE Scaled<T> derivative(T x) const { return of(x).derivative(); }
};

/// x σ(x)
template <class T>
struct SiLU : Smooth {
  TORCHACT_NO_PARAMETERS(SiLU)
  TORCHACT_INLINE static SelfGated<T> of(T x) { return SelfGated<T>(Split<T>(x, T(0))); }
  TORCHACT_INLINE T value(T x) const { return times(x, of(x).gate()); }
  TORCHACT_INLINE Scaled<T> derivative(T x) const { return of(x).derivative(); }
};

/// x σ(1.702 x)
template <class T>
struct QuickGELU : Swish<T> {
  TORCHACT_INLINE explicit QuickGELU(const double*) : Swish<T>(1.702) {}
};

/// x Φ(x); Φ(x) + x φ(x), with φ(x) = exp(-x²/2) / √(2π)
template <class T>
struct GELU : Smooth {
  static constexpr double kDensity = 0.39894228040143267794;  // φ(0)
  TORCHACT_NO_PARAMETERS(GELU)
  TORCHACT_INLINE static T magnitude(T x) { return at_most(absolute(x), T(60)); }  // Φ is 0 or 1 beyond it
  TORCHACT_INLINE static Scaled<T> gate(T x) {
    const T t = magnitude(x), tail = bell(t).up * scaled_tail(t);
    return {x < 0 ? tail : kUpFactor<T> - tail};
  }
  TORCHACT_INLINE T value(T x) const { return times(x, gate(x)); }
  // Left of 0 it is φ(t) (m(t) - t), and right of it 1 - φ(t) (m(t) - t), with t = |x| and Mills' ratio m.
  TORCHACT_INLINE Scaled<T> derivative(T x) const {
    const T t = magnitude(x), tail = bell(t).up * mul_add(T(-kDensity), t, scaled_tail(t));
    return or_by_root(x < 0 ? tail : kUpFactor<T> - tail, Split<T>(x, T(0)), -0.75179152469356445746, 0.431493996,
                      0.3882849821, -0.01820041185, -0.1140080461, -0.01474846698, 0.01941581948, 0.004306847585,
                      -0.002180693084);
  }
};

/// x σ(z), z = 2 √(2/π) (x + 0.044715 x³), since (1 + tanh(u)) / 2 is σ(2u)
template <class T>
struct GELUTanh : Smooth {
  static constexpr double kLinear = 1.5957691216057307118, kCubic = 0.071354816272600248776;
  TORCHACT_NO_PARAMETERS(GELUTanh)

  // exp(-|z|), of a |z| with the digits that it needs.
  TORCHACT_INLINE static Scaled<T> exp_of_minus_magnitude(T x) {
    const T t = at_most(absolute(x), T(30));  // beyond it σ is 0 or 1
    const Split<T> square = product(t, t), cubic = product(Split<T>(kCubic), square.hi), linear(kLinear);
    const Split<T> factor = sum(linear.hi, cubic.hi);
    const T rest = factor.lo + (cubic.lo + mul_add(T(kCubic), square.lo, linear.lo));
    const Split<T> z = product(factor.hi, t);
    return exp_scaled(Split<T>(-z.hi, -mul_add(rest, t, z.lo)));
  }
  TORCHACT_INLINE T value(T x) const { return times(x, gate_from(x, exp_of_minus_magnitude(x))); }

  // σ(z) (1 + x z' σ(-z)), z' = 2 √(2/π) (1 + 3 · 0.044715 x²)
  TORCHACT_INLINE Scaled<T> derivative(T x) const {
    const Scaled<T> scaled = exp_of_minus_magnitude(x);
    const T e = scaled.up * kDownFactor<T>, d = T(1) + e, inside = clamp(x, T(-30), T(30));
    const T growth = inside * mul_add(T(3 * kCubic) * inside, inside, T(kLinear));
    const T right = d + growth * e, left = (T(1) + growth) + e;
    return or_by_root((x < 0 ? scaled.up : kUpFactor<T>) / (d * d) * (x < 0 ? left : right), Split<T>(x, T(0)), -0.75246142207101625849, 0.4304000956,
                      0.3875184448, -0.01578376424, -0.1139442237, -0.01659076536, 0.01967417485, 0.004972818335,
                      -0.002340659379);
  }
};

/// x tanh(log(1 + exp(x))) = x n / (n + 2) with n = w (w + 2), w = exp(x)
template <class T>
struct Mish : Smooth {
  TORCHACT_NO_PARAMETERS(Mish)
  // Right of 0, numerator and denominator are multiplied by e² = exp(-2x).
  TORCHACT_INLINE T value(T x) const {
    const Scaled<T> scaled = exp_scaled(Split<T>(-absolute(x), T(0)));
    const T e = scaled.up * kDownFactor<T>, left = e + T(2), right = mul_add(T(2), e, T(1));
    const T denominator = x < 0 ? mul_add(e, left, T(2)) : mul_add(T(2) * e, e, right);
    return times(x, Scaled<T>{(x < 0 ? scaled.up : kUpFactor<T>) / denominator * (x < 0 ? left : right)});
  }
  // (n (n + 2) + 4 x w (1 + w)) / (n + 2)²
  TORCHACT_INLINE Scaled<T> derivative(T x) const {
    const Scaled<T> scaled = exp_scaled(Split<T>(-absolute(x), T(0)));
    const T e = scaled.up * kDownFactor<T>, inside = clamp(x, T(-2000), T(2000));
    const T left_d = mul_add(e, e + T(2), T(2));
    const T left_n = mul_add(e + T(2), left_d, T(4) * inside * (T(1) + e));
    const T m = mul_add(T(2), e, T(1)), right_d = mul_add(T(2) * e, e, m);
    const T right_n = mul_add(m, right_d, T(4) * (inside * e) * (e * (T(1) + e)));
    const T d = x < 0 ? left_d : right_d;
    return or_by_root((x < 0 ? scaled.up : kUpFactor<T>) / (d * d) * (x < 0 ? left_n : right_n), Split<T>(x, T(0)), -1.1924312145154952121, 0.2669479128,
                      0.2047312643, 0.04190806334, -0.02027187106, -0.01582874637, -0.00335918835, 0.001169811573,
                      0.0009752113159);
  }
};

/// x (x + 3) / 6 between -3 and 3, 0 left of it, x right of it
template <class T>
struct Hardswish : Smooth {
  TORCHACT_NO_PARAMETERS(Hardswish)
  TORCHACT_INLINE T value(T x) const {
    const T gate = clamp(x + T(3), T(0), T(6)) / T(6);
    return (gate == 0 ? clamp(x, T(-1), T(1)) : x) * gate;  // -∞ · 0 would be NaN
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T inside = (T(2) * x + T(3)) / T(6);
    return x <= T(-3) ? T(0) : x < T(3) ? inside : x == x ? T(1) : x;
  }
};

// ---- shrinkage

/// x - tanh(x); tanh²
template <class T>
struct Tanhshrink : Smooth {
  TORCHACT_NO_PARAMETERS(Tanhshrink)
  // Below 1 by its series, in which nothing cancels; 5e-9 and 1e-18. Above it, |x| - 1 is exact, or nearly.
  TORCHACT_INLINE T value(T x) const {
    const T t = absolute(x), inside = at_most(t, T(1)), w = inside * inside;
    T p;
    if constexpr (is_float<T>)
      p = polynomial(w, 0.33333333156722314, -0.13333310655545101, 0.053963414754438836, -0.021829548843059370,
                     0.0086978475928148778, -0.0032068033868365649, 0.00092350084634817609, -0.00014279318799621565);
    else
      p = polynomial(w, 0.33333333333333333, -0.13333333333333310, 0.053968253968231521, -0.021869488535296695,
                     0.0088632355125660536, -0.0035921278234228789, 0.0014558326517167649, -0.00059001756852543193,
                     0.00023908843670493631, -9.6791021826693297e-5, 3.8991741215043214e-5, -1.5416277241022483e-5,
                     5.7774841368659154e-6, -1.9216974143833894e-6, 5.1227671507932616e-7, -9.3641446229667593e-8,
                     8.5381619012121566e-9);
    const T near_zero = inside * (w * p);
    const T e = exp_nonpositive(T(-2) * t);
    const T outside = (t - T(1)) + T(2) * e / (T(1) + e);
    return with_sign_of(t < T(1) ? near_zero : outside, x);
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T y = math::tanh(x);
    return y * y;
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
  TORCHACT_NO_PARAMETERS(Gaussian)
  TORCHACT_INLINE T value(T x) const {
    const T inside = clamp(x, T(-40), T(40));
    const Split<T> square = product(inside, inside);
    return exp_nonpositive(Split<T>(-square.hi, -square.lo));
  }
  TORCHACT_INLINE T derivative(T x) const {
    const T inside = clamp(x, T(-40), T(40));
    const Split<T> square = product(inside, inside);
    return times(T(-2) * inside, exp_scaled(Split<T>(-square.hi, -square.lo)));
  }
};

// The sine and cosine of frequency · x. One angle is as good as another where their spacing exceeds a period, so angles
// that overflow are the greatest number.
template <class T>
struct Phase {
  T angle;
  TORCHACT_INLINE Phase(T frequency, T x) : angle(frequency * x) {
    constexpr T greatest = T(1.7976931348623157e308);
    const bool finite = absolute(x) <= greatest;
    angle = finite ? clamp(angle, -greatest, greatest) : angle;
  }
  TORCHACT_INLINE bool fits() const { return absolute(angle) <= kMostAngle; }
  TORCHACT_INLINE Wave fast() const { return wave(angle); }
  TORCHACT_INLINE Wave exact() const { return {::sin(double(angle)), ::cos(double(angle))}; }
};

/// sin(ω x); ω cos(ω x)
template <class T>
struct Sine : Waves {
  T omega;
  TORCHACT_INLINE explicit Sine(const double* p) : omega(T(p[0])) {}
  TORCHACT_INLINE Phase<T> phase(T x) const { return {omega, x}; }
  TORCHACT_INLINE T value(T, const Phase<T>&, Wave w) const { return w.sine; }
  TORCHACT_INLINE T derivative(T, const Phase<T>&, Wave w) const { return omega * w.cosine; }
};

// sin(a) / a; near 0 by the caller's sine it is 1 to rounding.
TORCHACT_INLINE double sinc(double angle, double sine) { return absolute(angle) < 1e-8 ? 1.0 : sine / angle; }

/// x + sin²(α x) / α; (sin + cos)², since 1 + sin(2 α x) would cancel
template <class T>
struct Snake : Waves {
  T alpha;
  TORCHACT_INLINE explicit Snake(const double* p) : alpha(T(p[0])) {}
  TORCHACT_INLINE Phase<T> phase(T x) const { return {alpha, x}; }
  TORCHACT_INLINE T value(T x, const Phase<T>& p, Wave w) const { return x + x * (w.sine * sinc(p.angle, w.sine)); }
  TORCHACT_INLINE T derivative(T, const Phase<T>&, Wave w) const {
    const T both = w.sine + w.cosine;
    return both * both;
  }
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
    const T e = exp_nonpositive(x == x ? -absolute(x) : T(-kInfinity)), d = T(1) + e;
    return e / (d * d);
  }
};

/// 1 / (1 + (π x)²)
template <class T>
struct BinaryStepAtan : BinaryStep<T> {
  static constexpr bool selects = false;
  using BinaryStep<T>::BinaryStep;
  TORCHACT_INLINE T derivative(T x) const {
    const T angle = absolute(T(3.14159265358979323846) * x), inverse = T(1) / angle;
    const bool large = angle > T(1);  // its square could overflow
    const T factor = large ? inverse : T(1), square = large ? inverse * inverse : angle * angle;
    return x == x ? factor * factor / (T(1) + square) : T(0);
  }
};

/// 1 / (1 + |x|)²
template <class T>
struct BinaryStepFastSigmoid : BinaryStep<T> {
  static constexpr bool selects = false;
  using BinaryStep<T>::BinaryStep;
  TORCHACT_INLINE T derivative(T x) const {
    const T d = T(1) + absolute(x);
    return x == x ? T(1) / d / d : T(0);
  }
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
  TORCHACT_INLINE static SelfGated<T> of(T x, T beta) {
    return SelfGated<T>(product(clamp(beta, T(-1e15), T(1e15)), clamp(x, T(-1e15), T(1e15))));
  }
  TORCHACT_INLINE T value(T x, T beta) const { return times(x, of(x, beta).gate()); }
  TORCHACT_INLINE Partials<T> partials(T x, T beta) const {
    const SelfGated<T> s = of(x, beta);
    return {times(T(1), s.derivative()), x * times(x, s.slope())};
  }
};

/// x + sin²(α x) / α; as of Snake, and x sin(2 α x) / α - sin²(α x) / α²
template <class T>
struct LearnableSnake : Waves {
  TORCHACT_NO_PARAMETERS(LearnableSnake)
  TORCHACT_INLINE Phase<T> phase(T x, T alpha) const { return {alpha, x}; }
  TORCHACT_INLINE T value(T x, T, const Phase<T>& p, Wave w) const {
    return x + x * (w.sine * sinc(p.angle, w.sine));
  }
  TORCHACT_INLINE Partials<T> partials(T x, T, const Phase<T>& p, Wave w) const {
    const T both = w.sine + w.cosine, ratio = sinc(p.angle, w.sine);
    return {both * both, x * (x * (ratio * (2 * w.cosine - ratio)))};
  }
};

// ---- gated units, v φ(g)

/// v σ(g); σ(g), and v σ(g) σ(-g)
template <class T>
struct GLU : Smooth {
  TORCHACT_NO_PARAMETERS(GLU)
  TORCHACT_INLINE T value(T v, T g) const { return times(v, SiLU<T>::of(g).gate()); }
  TORCHACT_INLINE Partials<T> partials(T v, T g) const {
    const SelfGated<T> s = SiLU<T>::of(g);
    return {times(T(1), s.gate()), times(v, s.slope())};
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

/// v g Φ(g); g Φ(g), and v (Φ(g) + g φ(g)), of either form of GELU
template <class T, class Form>
struct GatedByGELU : Smooth {
  TORCHACT_NO_PARAMETERS(GatedByGELU)
  TORCHACT_INLINE T value(T v, T g) const { return v * Form(nullptr).value(g); }
  TORCHACT_INLINE Partials<T> partials(T v, T g) const {
    return {Form(nullptr).value(g), times(v, Form(nullptr).derivative(g))};
  }
};

template <class T>
struct GEGLU : GatedByGELU<T, GELU<T>> {
  using GatedByGELU<T, GELU<T>>::GatedByGELU;
};

template <class T>
struct GEGLUTanh : GatedByGELU<T, GELUTanh<T>> {
  using GatedByGELU<T, GELUTanh<T>>::GatedByGELU;
};

/// (v + o) g σ(α g), v within ± limit and g at most limit, beyond which derivatives are 0
template <class T>
struct SwiGLU : Smooth {
  Swish<T> swish;
  T limit, offset;
  TORCHACT_INLINE explicit SwiGLU(const double* p) : swish(p[0]), limit(T(p[1])), offset(T(p[2])) {}
  TORCHACT_INLINE T value(T v, T g) const {
    return (clamp(v, -limit, limit) + offset) * swish.value(at_most(g, limit));
  }
  TORCHACT_INLINE Partials<T> partials(T v, T g) const {
    const T inside = at_most(g, limit);
    const SelfGated<T> s = swish.of(inside);
    return {absolute(v) > limit ? T(0) : times(inside, s.gate()),
            g > limit ? T(0) : times(clamp(v, -limit, limit) + offset, s.derivative())};
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

#undef TORCHACT_NO_PARAMETERS

}  // namespace torchact::TORCHACT_CAPABILITY::formulas
