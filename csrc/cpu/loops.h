// The loops over the formulas. They are plain, so that compilers vectorise them; `ivdep` says that an output is not read
// again, even where it lies in the memory of an input.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../formulas.h"
#include "half.h"
#include "kernels.h"

namespace torchact::TORCHACT_CAPABILITY {

using cpu::Direction;
using cpu::Half;
using cpu::Loop;
using cpu::Loops;

template <class T>
const T* input(const void* const* inputs, int i) {
  return static_cast<const T*>(inputs[i]);
}

template <class T>
T* output(void* const* outputs, int i) {
  return static_cast<T*>(outputs[i]);
}

template <template <class> class Formula, class T>
using Computed = std::conditional_t<Formula<T>::wide, double, T>;

// Applies `one` to the numbers from 0 to `count`. The functions that call it are flattened: GCC would not inline all.
template <class One>
TORCHACT_INLINE void for_each(int64_t count, One one) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) one(i);
}

// Applies `one` with the sine and cosine of each phase: in blocks that are vectors, but for those with a large angle.
template <bool rounded, class Fits, class PhaseOf, class One>
TORCHACT_INLINE void for_each_wave(int64_t count, Fits fits, PhaseOf phase_of, One one) {
  constexpr int64_t kBlock = 64;
  for (int64_t start = 0; start < count; start += kBlock) {
    const int64_t end = start + kBlock < count ? start + kBlock : count;
    int large = 0;
    for (int64_t i = start; i < end; ++i) large += !fits(i);
    if (large == 0) {
#pragma GCC ivdep
      for (int64_t i = start; i < end; ++i) {
        const auto phase = phase_of(i);
        if constexpr (rounded)
          one(i, phase, phase.rounded());
        else
          one(i, phase, phase.fast());
      }
    } else {
      for (int64_t i = start; i < end; ++i) one(i, phase_of(i), phase_of(i).exact());
    }
  }
}

template <template <class> class Formula, class T>
struct OfOne {
  using C = Computed<Formula, T>;
  using F = Formula<C>;

  [[gnu::flatten]] static void forward(const void* const* inputs, void* const* outputs, int64_t count,
                                       const void* parameters) {
    const F formula(static_cast<const double*>(parameters));
    const T* x = input<T>(inputs, 0);
    T* y = output<T>(outputs, 0);
    if constexpr (F::waves)
      for_each_wave<std::is_same_v<T, float>>(
          count, [=](int64_t i) { return formula.fits(x[i]); }, [=](int64_t i) { return formula.phase(C(x[i])); },
          [=](int64_t i, auto phase, auto wave) { y[i] = T(formula.value(C(x[i]), phase, wave)); });
    else
      for_each(count, [=](int64_t i) { y[i] = T(formula.value(C(x[i]))); });
  }

  [[gnu::flatten]] static void backward(const void* const* inputs, void* const* outputs, int64_t count,
                                        const void* parameters) {
    const F formula(static_cast<const double*>(parameters));
    const T* grad_output = input<T>(inputs, 0);
    const T* saved = input<T>(inputs, 1);
    T* grad_input = output<T>(outputs, 0);
    if constexpr (F::waves)
      for_each_wave<std::is_same_v<T, float>>(
          count, [=](int64_t i) { return formula.fits(saved[i]); },
          [=](int64_t i) { return formula.phase(C(saved[i])); },
          [=](int64_t i, auto phase, auto wave) {
            grad_input[i] = T(C(grad_output[i]) * formula.derivative(C(saved[i]), phase, wave));
          });
    else
      for_each(count, [=](int64_t i) {
        grad_input[i] = T(formulas::gradient<F::selects>(C(grad_output[i]), formula.derivative(C(saved[i]))));
      });
  }
};

template <template <class> class Formula, class T>
struct OfTwo {
  using C = Computed<Formula, T>;
  using F = Formula<C>;

  [[gnu::flatten]] static void forward(const void* const* inputs, void* const* outputs, int64_t count,
                                       const void* parameters) {
    const F formula(static_cast<const double*>(parameters));
    const T* first = input<T>(inputs, 0);
    const T* second = input<T>(inputs, 1);
    T* y = output<T>(outputs, 0);
    if constexpr (F::waves)
      for_each_wave<std::is_same_v<T, float>>(
          count, [=](int64_t i) { return formula.fits(first[i], second[i]); },
          [=](int64_t i) { return formula.phase(C(first[i]), C(second[i])); },
          [=](int64_t i, auto phase, auto wave) {
            y[i] = T(formula.value(C(first[i]), C(second[i]), phase, wave));
          });
    else
      for_each(count, [=](int64_t i) { y[i] = T(formula.value(C(first[i]), C(second[i]))); });
  }

  [[gnu::flatten]] static void backward(const void* const* inputs, void* const* outputs, int64_t count,
                                        const void* parameters) {
    const F formula(static_cast<const double*>(parameters));
    const T* grad_output = input<T>(inputs, 0);
    const T* first = input<T>(inputs, 1);
    const T* second = input<T>(inputs, 2);
    T* grad_first = output<T>(outputs, 0);
    T* grad_second = output<T>(outputs, 1);
    auto store = [=](int64_t i, auto partials) {
      const C g = C(grad_output[i]);
      grad_first[i] = T(formulas::gradient<F::selects>(g, partials.by_first));
      grad_second[i] = T(formulas::gradient<F::selects>(g, partials.by_second));
    };
    if constexpr (F::waves)
      for_each_wave<false>(
          count, [=](int64_t i) { return formula.fits(first[i], second[i]); },
          [=](int64_t i) { return formula.phase(C(first[i]), C(second[i])); },
          [=](int64_t i, auto phase, auto wave) {
            store(i, formula.partials(C(first[i]), C(second[i]), phase, wave));
          });
    else
      for_each(count, [=](int64_t i) { store(i, formula.partials(C(first[i]), C(second[i]))); });
  }
};

// logsigmoid, and the exponential that torch's own backward pass reads.
template <class T>
void log_sigmoid(const void* const* inputs, void* const* outputs, int64_t count, const void*) {
  const T* x = input<T>(inputs, 0);
  T* y = output<T>(outputs, 0);
  T* exponential = output<T>(outputs, 1);
  for_each(count, [=](int64_t i) {
    const T e = math::exp_nonpositive(-math::absolute(x[i]));
    y[i] = math::at_most(x[i], T(0)) - math::log1p_unit(e);
    exponential[i] = e;
  });
}

template <class Type>
struct OfHalf {
  static void widen(const void* const* inputs, void* const* outputs, int64_t count, const void*) {
    const uint16_t* x = input<uint16_t>(inputs, 0);
    float* y = output<float>(outputs, 0);
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = Type::widen(x[i]);
  }

  static void narrow(const void* const* inputs, void* const* outputs, int64_t count, const void*) {
    const float* x = input<float>(inputs, 0);
    uint16_t* y = output<uint16_t>(outputs, 0);
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = Type::narrow(x[i]);
  }

  static void forward(const void* const* inputs, void* const* outputs, int64_t count, const void* values) {
    const float* table = static_cast<const float*>(values);
    const uint16_t* x = input<uint16_t>(inputs, 0);
    uint16_t* y = output<uint16_t>(outputs, 0);
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = Type::narrow(table[x[i]]);
  }

  static void backward(const void* const* inputs, void* const* outputs, int64_t count, const void* derivatives) {
    const float* table = static_cast<const float*>(derivatives);
    const uint16_t* grad_output = input<uint16_t>(inputs, 0);
    const uint16_t* x = input<uint16_t>(inputs, 1);
    uint16_t* grad_input = output<uint16_t>(outputs, 0);
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) grad_input[i] = Type::narrow(table[x[i]] * Type::widen(grad_output[i]));
  }

  static constexpr Half loops() { return {&widen, &narrow, {&forward, &backward}}; }
};

template <template <template <class> class, class> class Over, template <class> class Formula>
constexpr Loops loops() {
  return {{{&Over<Formula, float>::forward, &Over<Formula, float>::backward},
           {&Over<Formula, double>::forward, &Over<Formula, double>::backward}}};
}

}  // namespace torchact::TORCHACT_CAPABILITY
