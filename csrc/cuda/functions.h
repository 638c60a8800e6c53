// What a kernel applies to each element: a formula's value, or gradients by its derivatives.
#pragma once

#include <cuda_runtime.h>

#include "../formulas.h"

namespace torchact::cuda {

using namespace TORCHACT_CAPABILITY;

// A large angle is rare and its sine long code, hence one copy of it that is called.
__host__ __device__ __attribute__((noinline)) inline math::Wave wave_of_large(formulas::Phase<double> phase) {
  return phase.exact();
}

TORCHACT_INLINE math::Wave wave_of(const formulas::Phase<double>& phase) {
  return phase.fits() ? phase.fast() : wave_of_large(phase);
}

// (input) -> (output), or (first, second) -> (output)
template <class F, class T, int operands>
struct Forward {
  using Computed = T;
  static constexpr bool wide = F::wide;
  static constexpr int inputs = operands, outputs = 1;
  F formula;

  explicit Forward(const double* parameters) : formula(parameters) {}

  TORCHACT_INLINE void operator()(const T* in, T* out) const {
    if constexpr (operands == 1)
      out[0] = value(in[0]);
    else
      out[0] = value(in[0], in[1]);
  }

  template <class... Operand>
  TORCHACT_INLINE T value(Operand... x) const {
    if constexpr (F::waves) {
      const auto phase = formula.phase(x...);
      return formula.value(x..., phase, wave_of(phase));
    } else {
      return formula.value(x...);
    }
  }
};

// (grad_output, saved) -> (grad_input), or (grad_output, first, second) -> (grad_first, grad_second)
template <class F, class T, int operands>
struct Backward {
  using Computed = T;
  static constexpr bool wide = F::wide;
  static constexpr int inputs = 1 + operands, outputs = operands;
  F formula;

  explicit Backward(const double* parameters) : formula(parameters) {}

  TORCHACT_INLINE void operator()(const T* in, T* out) const {
    const T grad_output = in[0];
    if constexpr (operands == 1) {
      out[0] = formulas::gradient<F::selects>(grad_output, derivative(in[1]));
    } else {
      const auto partials = this->partials(in[1], in[2]);
      out[0] = formulas::gradient<F::selects>(grad_output, partials.by_first);
      out[1] = formulas::gradient<F::selects>(grad_output, partials.by_second);
    }
  }

  TORCHACT_INLINE auto derivative(T x) const {
    if constexpr (F::waves) {
      const auto phase = formula.phase(x);
      return formula.derivative(x, phase, wave_of(phase));
    } else {
      return formula.derivative(x);
    }
  }

  TORCHACT_INLINE auto partials(T first, T second) const {
    if constexpr (F::waves) {
      const auto phase = formula.phase(first, second);
      return formula.partials(first, second, phase, wave_of(phase));
    } else {
      return formula.partials(first, second);
    }
  }
};

}  // namespace torchact::cuda
