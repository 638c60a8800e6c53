// Gated units of numbers with 8 bits, bfloat16, on the CPU.
//
// They are computed in float32, of which the last bits do not count, nor does cancellation: no such number lies very
// near a root. What opens a gate on the left, σ(-z) = e / (1 + e) with e = exp(-z), is too small for float32 long
// before its products are: of the two roots of e one goes to each factor.
#pragma once

#include "../formulas.h"

namespace torchact::TORCHACT_CAPABILITY::formulas {

// Of z: beyond it products are 0 on the left and gates 1 on the right, while √e is not 0 yet, by which infinity would
// become NaN.
constexpr float kMostBrief = 200;

// exp(-z / 2) for 0 ≤ z ≤ kMostBrief, to 4e-6 or what a subnormal number has.
TORCHACT_INLINE float brief_root(float z) {
  // Rounds to an integer n and leaves the bits of a power of 2, 2^(n + 24), in the lowest.
  constexpr float round = 12582912.0f + 127 + 24;
  constexpr double ln2 = 0.69314718055994531;
  const float shifted = mul_add(z, float(-0.5 / ln2), round), n = shifted - round;
  const float power = __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, shifted) << 23);
  const float r = mul_add(n, float(2 * ln2), z);
  constexpr double down = 0x1p-24;
  return power * polynomial(r, down, down / -2, down * 0.49999 / 4, down * 0.16667 / -8, down * 0.0417 / 16);
}

// Whether a gate is nearer to 0 than to 1, by a number with the sign of z(x).
TORCHACT_INLINE bool is_left(float x) { return __builtin_bit_cast(int32_t, x) < 0; }

// What an activation's gate has at x: `root` is √e on the left, where e is its factor, and 1 on the right; `other` has
// 1 and e. Compilers must not know that 1: they would choose between products instead.
struct BriefSide {
  float root_of_e, e, root, other;
  TORCHACT_INLINE BriefSide(bool left, float z, float one)
      : root_of_e(brief_root(z)), e(root_of_e * root_of_e), root(left ? root_of_e : one), other(left ? one : e) {}
};

// v x σ(z(x)). A gate tells x where it is not 0 on the left, a number with the sign of z, |z| of |x|, and x z'.
template <class Gate>
struct BriefLogistic : Smooth {
  Gate gate;
  float one = unknown(1.0f);
  TORCHACT_INLINE explicit BriefLogistic(const double* p) : gate(p) {}
  TORCHACT_INLINE BriefSide side(float x) const {
    return {is_left(gate.side(x)), gate.magnitude(bounded_magnitude(x, gate.most)), one};
  }
  TORCHACT_INLINE float value(float v, float g) const {
    const float x = gate.inside(g);
    const BriefSide s = side(x);
    return (v * s.root) * (x * s.root / (1 + s.e));
  }
  // With y = 1 + x z', (x σ(z))' is e (e + y) / (1 + e)² on the left and (1 + e y) / (1 + e)² on the right.
  TORCHACT_INLINE Partials<float> partials(float v, float g) const {
    const float x = gate.inside(g);
    const BriefSide s = side(x);
    const float r = 1 / (1 + s.e), opened = s.root * r, y = 1 + gate.slope(x);
    return {(x * s.root) * opened, ((v * s.root) * opened) * (mul_add(s.other, y, s.root * s.root) * r)};
  }
};

// σ(x)
struct BriefLogisticGate {
  float most = unknown(kMostBrief), least = unknown(-kMostBrief);
  TORCHACT_INLINE explicit BriefLogisticGate(const double*) {}
  TORCHACT_INLINE float inside(float g) const { return at_least(g, least); }
  TORCHACT_INLINE static float side(float x) { return x; }
  TORCHACT_INLINE static float magnitude(float t) { return t; }
  TORCHACT_INLINE float slope(float x) const { return at_most(x, most); }
};

// As TanhGate
struct BriefTanhGate {
  using G = TanhGate<float, Reach::factor>;
  float most = unknown(G::kMost), least = unknown(-G::kMost);
  TORCHACT_INLINE explicit BriefTanhGate(const double*) {}
  TORCHACT_INLINE float inside(float g) const { return at_least(g, least); }
  TORCHACT_INLINE static float side(float x) { return x; }
  TORCHACT_INLINE static float magnitude(float t) { return t * mul_add(t * t, float(G::c), float(G::c * G::k)); }
  TORCHACT_INLINE float slope(float x) const {
    const float inside = at_most(x, most);
    return inside * mul_add(inside * inside, float(3 * G::c), float(G::c * G::k));
  }
};

// σ(α x), of x at most `limit`
struct BriefSwishGate {
  float alpha, most, low, high;
  TORCHACT_INLINE explicit BriefSwishGate(const double* p)
      : alpha(float(p[0])),
        most(unknown(at_most(kMostBrief / absolute(alpha), kGreatest<float>))),
        low(alpha > 0 ? -most : float(-kInfinity)),
        high(alpha > 0 ? float(p[1]) : at_most(most, float(p[1]))) {}
  TORCHACT_INLINE float inside(float g) const { return clamp(g, low, high); }
  TORCHACT_INLINE float side(float x) const { return alpha * x; }
  TORCHACT_INLINE float magnitude(float t) const { return absolute(alpha) * t; }
  TORCHACT_INLINE float slope(float x) const { return alpha * clamp(x, -most, most); }
};

/// as PlainSwiGLU
using BriefPlainSwiGLU = BriefLogistic<BriefLogisticGate>;

/// as GEGLUTanh
using BriefGEGLUTanh = BriefLogistic<BriefTanhGate>;

/// as SwiGLU
struct BriefSwiGLU : Smooth {
  BriefLogistic<BriefSwishGate> swish;
  float limit, offset;
  TORCHACT_INLINE explicit BriefSwiGLU(const double* p) : swish(p), limit(float(p[1])), offset(float(p[2])) {}
  TORCHACT_INLINE float factor(float v) const { return clamp(v, -limit, limit) + offset; }
  TORCHACT_INLINE float value(float v, float g) const { return swish.value(factor(v), g); }
  TORCHACT_INLINE Partials<float> partials(float v, float g) const {
    const Partials<float> p = swish.partials(factor(v), g);
    return {absolute(v) > limit ? 0.0f : p.by_first, g > limit ? 0.0f : p.by_second};
  }
};

/// as GLU
struct BriefGLU : Smooth {
  float one = unknown(1.0f), most = unknown(kMostBrief);
  TORCHACT_INLINE explicit BriefGLU(const double*) {}
  TORCHACT_INLINE BriefSide side(float g) const { return {is_left(g), at_most(absolute(g), most), one}; }
  TORCHACT_INLINE float value(float v, float g) const {
    const BriefSide s = side(g);
    return (v * s.root) * (s.root / (1 + s.e));
  }
  TORCHACT_INLINE Partials<float> partials(float v, float g) const {
    const BriefSide s = side(g);
    const float r = 1 / (1 + s.e);
    return {s.root * (s.root * r), (v * s.root_of_e) * (s.root_of_e * (r * r))};
  }
};

/// as GEGLU; e = exp(-g²/2)
struct BriefGEGLU : Smooth {
  using G = NormalGate<float, Reach::factor>;
  float one = unknown(1.0f), most = unknown(G::kMost), least = unknown(-G::kMost);
  TORCHACT_INLINE explicit BriefGEGLU(const double*) {}

  // (1 - Φ(t)) / e for 0 ≤ t ≤ 20, as mills_ratio; 2.8e-6
  TORCHACT_INLINE static float mills_ratio(float t) {
    const float p = polynomial(t, 0.49999859, 0.40686633, 0.14705507, 0.02409634);
    return p / mul_add(float(kRootOfTwoPi) * t, p, polynomial(t, 1.0, 0.35818866, 0.06081735));
  }
  // Of a factor f such that e f is the gate, or its derivative, at -|g|: what it is at g, over `root`.
  TORCHACT_INLINE static float opened(bool left, const BriefSide& s, float f) {
    return left ? s.root_of_e * f : mul_add(-s.e, f, 1.0f);
  }
  TORCHACT_INLINE float value(float v, float g) const {
    const float x = at_least(g, least), t = at_most(absolute(x), most);
    const BriefSide s(is_left(x), 0.5f * (t * t), one);
    return (v * s.root) * (x * opened(is_left(x), s, mills_ratio(t)));
  }
  TORCHACT_INLINE Partials<float> partials(float v, float g) const {
    const float x = at_least(g, least), t = at_most(absolute(x), most), f = mills_ratio(t);
    const BriefSide s(is_left(x), 0.5f * (t * t), one);
    const float derivative = opened(is_left(x), s, mul_add(t, float(-1 / kRootOfTwoPi), f));
    return {(x * s.root) * opened(is_left(x), s, f), (v * s.root) * derivative};
  }
};

// The formula by which bfloat16 numbers are computed; T is the type that this needs without a brief one.
template <template <class> class Formula, class T>
struct Brief {
  using type = Formula<T>;
};
template <class T>
struct Brief<GLU, T> {
  using type = BriefGLU;
};
template <class T>
struct Brief<GEGLU, T> {
  using type = BriefGEGLU;
};
template <class T>
struct Brief<GEGLUTanh, T> {
  using type = BriefGEGLUTanh;
};
template <class T>
struct Brief<SwiGLU, T> {
  using type = BriefSwiGLU;
};
template <class T>
struct Brief<PlainSwiGLU, T> {
  using type = BriefPlainSwiGLU;
};

}  // namespace torchact::TORCHACT_CAPABILITY::formulas
