// The loops over the formulas. They are plain, so that compilers vectorise them; `ivdep` says that an output is not read
// again, even where it lies in the memory of an input.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

#include "../formulas.h"
#include "brief.h"
#include "half.h"
#include "kernels.h"

#define TORCHACT_INLINED __attribute__((always_inline))  // of lambdas, some of which GCC would leave alone

namespace torchact::TORCHACT_CAPABILITY {

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

// What a formula is computed in for tensors of this type.
template <template <class> class Formula, class T>
using Computed = std::conditional_t<Formula<typename Number<T>::Computed>::wide, double, typename Number<T>::Computed>;

// The formula for them.
template <template <class> class Formula, class T>
using Of = typename std::conditional_t<std::is_same_v<T, BFloat16>, formulas::Brief<Formula, Computed<Formula, T>>,
                                       std::type_identity<Formula<Computed<Formula, T>>>>::type;

// Applies `one` to the numbers from `begin` to `end`. The functions that call it are flattened: GCC would not inline all.
template <class One>
TORCHACT_INLINE void for_each(int64_t begin, int64_t end, One one) {
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) one(i);
}

template <class One>
TORCHACT_INLINE void for_each(int64_t count, One one) {
  for_each(0, count, one);
}

constexpr int64_t kBlockBytes = 1024, kAheadBytes = 2 * kBlockBytes;

// Applies `some` to blocks of numbers, by where they start and how many they are, and asks memory for inputs some blocks
// before they are read. One number of a long formula is computed after the other, and a processor looks no further ahead
// than a few of them: it would wait for memory in between.
template <class Some, class... S>
TORCHACT_INLINE void for_each_block(int64_t count, Some some, const S*... inputs) {
  constexpr int64_t kBlock = kBlockBytes / std::max({sizeof(S)...});
  for (int64_t start = 0; start < count; start += kBlock) {
    (cpu::prefetch(inputs + start + kAheadBytes / sizeof(S), kBlock * sizeof(S)), ...);
    some(start, start + kBlock < count ? kBlock : count - start);
  }
}

// Applies `one` to the numbers from 0 to `count` in such blocks.
template <class One, class... S>
TORCHACT_INLINE void for_each_ahead(int64_t count, One one, const S*... inputs) {
  const auto some = [=](int64_t start, int64_t count) TORCHACT_INLINED { for_each(start, start + count, one); };
  for_each_block(count, some, inputs...);
}

// Where numbers lie that are computed together: one, or the two of a word.
template <class N>
struct Alone {
  int64_t i;
  template <class Function, class... S>
  TORCHACT_INLINE auto of(Function function, const S*... inputs) const {
    return std::array{function(N::load(inputs[i])...)};
  }
  template <class Results, class Part, class S>
  TORCHACT_INLINE void put(const Results& results, Part part, S* output) const {
    output[i] = N::store(results[0].*part);
  }
};

template <class N>
struct InWord {
  int64_t i;
  template <class Function, class... S>
  TORCHACT_INLINE auto of(Function function, const S*... inputs) const {
    return std::array{function(N::lower(reinterpret_cast<const Word*>(inputs)[i])...),
                      function(N::upper(reinterpret_cast<const Word*>(inputs)[i])...)};
  }
  template <class Results, class Part, class S>
  TORCHACT_INLINE void put(const Results& results, Part part, S* output) const {
    reinterpret_cast<Word*>(output)[i] = N::word(results[0].*part, results[1].*part);
  }
};

// Applies `some` to the places of `count` numbers.
template <class N, class Some, class... S>
TORCHACT_INLINE void for_each_place(int64_t count, Some some, const S*... inputs) {
  if constexpr (sizeof(typename N::Stored) == 2) {
    for_each_ahead(
        count / 2, [=](int64_t i) TORCHACT_INLINED { some(InWord<N>{i}); }, reinterpret_cast<const Word*>(inputs)...);
    if (count % 2) some(Alone<N>{count - 1});
  } else {
    for_each_ahead(count, [=](int64_t i) { some(Alone<N>{i}); }, inputs...);
  }
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
class OfOne {
  using N = Number<T>;
  using S = typename N::Stored;
  using C = Computed<Formula, T>;
  using F = Formula<C>;

 public:
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
      for_each_ahead(count, [=](int64_t i) { y[i] = T(formula.value(C(x[i]))); }, x);
  }

  [[gnu::flatten]] static void backward(const void* const* inputs, void* const* outputs, int64_t count,
                                        const void* parameters) {
    const F formula(static_cast<const double*>(parameters));
    const S* grad_output = input<S>(inputs, 0);
    const S* saved = input<S>(inputs, 1);
    S* grad_input = output<S>(outputs, 0);
    if constexpr (F::waves) {
      auto store = [=](int64_t i, C derivative) {
        grad_input[i] = T(formulas::gradient<F::selects>(C(grad_output[i]), derivative));
      };
      for_each_wave<std::is_same_v<T, float>>(
          count, [=](int64_t i) { return formula.fits(saved[i]); },
          [=](int64_t i) { return formula.phase(C(saved[i])); },
          [=](int64_t i, auto phase, auto wave) { store(i, formula.derivative(C(saved[i]), phase, wave)); });
    } else {
      for_each_place<N>(count, [=](auto place) TORCHACT_INLINED {
        const auto gradient = [=](C g, C x) TORCHACT_INLINED {
          return Result{formulas::gradient<F::selects>(g, formula.derivative(x))};
        };
        place.put(place.of(gradient, grad_output, saved), &Result::value, grad_input);
      }, grad_output, saved);
    }
  }

 private:
  struct Result {
    C value;
  };
};

template <template <class> class Formula, class T>
class OfTwo {
  using N = Number<T>;
  using S = typename N::Stored;
  using C = Computed<Formula, T>;
  using F = Of<Formula, T>;

 public:
  [[gnu::flatten]] static void forward(const void* const* inputs, void* const* outputs, int64_t count,
                                       const void* parameters) {
    const F formula(static_cast<const double*>(parameters));
    const S* first = input<S>(inputs, 0);
    const S* second = input<S>(inputs, 1);
    S* y = output<S>(outputs, 0);
    if constexpr (F::waves)
      for_each_wave<std::is_same_v<T, float>>(
          count, [=](int64_t i) { return formula.fits(N::load(first[i]), N::load(second[i])); },
          [=](int64_t i) { return formula.phase(C(N::load(first[i])), C(N::load(second[i]))); },
          [=](int64_t i, auto phase, auto wave) {
            y[i] = N::store(formula.value(C(N::load(first[i])), C(N::load(second[i])), phase, wave));
          });
    else
      for_each_place<N>(count, [=](auto place) TORCHACT_INLINED {
        const auto value = [=](C a, C b) TORCHACT_INLINED { return Result{formula.value(a, b)}; };
        place.put(place.of(value, first, second), &Result::value, y);
      }, first, second);
  }

  [[gnu::flatten]] static void backward(const void* const* inputs, void* const* outputs, int64_t count,
                                        const void* parameters) {
    const F formula(static_cast<const double*>(parameters));
    const S* grad_output = input<S>(inputs, 0);
    const S* first = input<S>(inputs, 1);
    const S* second = input<S>(inputs, 2);
    S* grad_first = output<S>(outputs, 0);
    S* grad_second = output<S>(outputs, 1);
    auto gradients = [](C g, auto partials) TORCHACT_INLINED {
      return Gradients{formulas::gradient<F::selects>(g, partials.by_first),
                       formulas::gradient<F::selects>(g, partials.by_second)};
    };
    if constexpr (F::waves)
      for_each_wave<false>(
          count, [=](int64_t i) { return formula.fits(N::load(first[i]), N::load(second[i])); },
          [=](int64_t i) { return formula.phase(C(N::load(first[i])), C(N::load(second[i]))); },
          [=](int64_t i, auto phase, auto wave) {
            const auto partials = formula.partials(C(N::load(first[i])), C(N::load(second[i])), phase, wave);
            const Gradients both = gradients(C(N::load(grad_output[i])), partials);
            grad_first[i] = N::store(both.first);
            grad_second[i] = N::store(both.second);
          });
    else
      for_each_place<N>(count, [=](auto place) TORCHACT_INLINED {
        const auto each = [=](C g, C a, C b) TORCHACT_INLINED { return gradients(g, formula.partials(a, b)); };
        const auto both = place.of(each, grad_output, first, second);
        place.put(both, &Gradients::first, grad_first);
        place.put(both, &Gradients::second, grad_second);
      }, grad_output, first, second);
  }

 private:
  struct Result {
    C value;
  };
  struct Gradients {
    C first, second;
  };
};

// logsigmoid, and the exponential that torch's own backward pass reads.
template <class T>
void log_sigmoid(const void* const* inputs, void* const* outputs, int64_t count, const void*) {
  const T* x = input<T>(inputs, 0);
  T* y = output<T>(outputs, 0);
  T* exponential = output<T>(outputs, 1);
  for_each_ahead(
      count,
      [=](int64_t i) {
        const T e = math::exp_nonpositive(-math::absolute(x[i]));
        y[i] = math::at_most(x[i], T(0)) - math::log1p_unit(e);
        exponential[i] = e;
      },
      x);
}

template <class Type>
struct OfHalf {
  static void widen(const void* const* inputs, void* const* outputs, int64_t count, const void*) {
    widen_each<Type>(input<uint16_t>(inputs, 0), output<float>(outputs, 0), count);
  }

  static void narrow(const void* const* inputs, void* const* outputs, int64_t count, const void*) {
    narrow_each<Type>(input<float>(inputs, 0), output<uint16_t>(outputs, 0), count);
  }

  static void forward(const void* const* inputs, void* const* outputs, int64_t count, const void* values) {
    const uint16_t* x = input<uint16_t>(inputs, 0);
    uint16_t* y = output<uint16_t>(outputs, 0);
    for_each_block(
        count, [=](int64_t start, int64_t some) { look_up(x + start, static_cast<const uint16_t*>(values), y + start, some); },
        x);
  }

  static void backward(const void* const* inputs, void* const* outputs, int64_t count, const void* derivatives) {
    const float* table = static_cast<const float*>(derivatives);
    const uint16_t* grad_output = input<uint16_t>(inputs, 0);
    const uint16_t* x = input<uint16_t>(inputs, 1);
    uint16_t* grad_input = output<uint16_t>(outputs, 0);
    const auto multiply_some = [=](int64_t start, int64_t some) {
      if (Type::kInWords && some % 2 == 0)
        multiply_words(grad_output + start, x + start, table, grad_input + start, some / 2);
      else
        multiply(grad_output + start, x + start, table, grad_input + start, some);
    };
    for_each_block(count, multiply_some, grad_output, x);
  }

  static constexpr int64_t kBlock = kBlockBytes / sizeof(uint16_t);

  static void multiply(const uint16_t* g, const uint16_t* x, const float* table, uint16_t* y, int64_t count) {
    alignas(64) float factors[kBlock];
    look_up(x, table, factors, count);
    multiply_each<Type>(g, factors, y, count);
  }

  static void multiply_words(const void* g, const void* x, const float* table, void* y, int64_t count) {
    alignas(64) float lower[kBlock / 2], upper[kBlock / 2];
#pragma GCC unroll 4
    for (int64_t i = 0; i < count; ++i) {
      const Word word = static_cast<const Word*>(x)[i];
      lower[i] = table[word & 0xffff];
      upper[i] = table[word >> 16];
      one_by_one();
    }
    for_each(count, [=, lower = &lower[0], upper = &upper[0]](int64_t i) {
      const Word word = static_cast<const Word*>(g)[i];
      static_cast<Word*>(y)[i] = Type::word(Type::lower(word) * lower[i], Type::upper(word) * upper[i]);
    });
  }

  template <class Entry>
  static TORCHACT_INLINE void look_up(const uint16_t* x, const Entry* table, Entry* entries, int64_t count) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < count; ++i) {
      entries[i] = table[x[i]];
      one_by_one();
    }
  }

  // In a loop of which no vectors are to be made: to put together what is read at many places takes longer than to
  // store it.
  static TORCHACT_INLINE void one_by_one() { asm volatile(""); }

  static constexpr Half loops() { return {&widen, &narrow, {&forward, &backward}}; }
};

template <class Over>
constexpr cpu::Direction direction() {
  return {&Over::forward, &Over::backward};
}

// Chooses the shorter formula that stands for another where it applies to the parameters.
template <template <template <class> class, class> class Over, template <class> class Formula, class T>
struct Chosen {
  using Special = formulas::Special<Formula>;
  using General = Over<Formula, T>;
  using Short = Over<Special::template Formula, T>;

  static void forward(const void* const* inputs, void* const* outputs, int64_t count, const void* parameters) {
    const bool applies = Special::applies(static_cast<const double*>(parameters));
    (applies ? &Short::forward : &General::forward)(inputs, outputs, count, parameters);
  }

  static void backward(const void* const* inputs, void* const* outputs, int64_t count, const void* parameters) {
    const bool applies = Special::applies(static_cast<const double*>(parameters));
    (applies ? &Short::backward : &General::backward)(inputs, outputs, count, parameters);
  }
};

template <template <template <class> class, class> class Over, template <class> class Formula, class T>
constexpr cpu::Direction direction() {
  if constexpr (formulas::Special<Formula>::exists)
    return direction<Chosen<Over, Formula, T>>();
  else
    return direction<Over<Formula, T>>();
}

// Numbers of 16 bits are mostly looked up. Else they are widened first, but in gradients of bfloat16: of those, some are
// computed faster than looked up.
template <template <class> class Formula>
constexpr Loops loops_of_one() {
  Loops loops{direction<OfOne, Formula, float>(), direction<OfOne, Formula, double>()};
  if constexpr (!Formula<float>::waves) loops[2].backward = &OfOne<Formula, BFloat16>::backward;
  return loops;
}

template <template <class> class Formula>
constexpr Loops loops_of_two() {
  return {direction<OfTwo, Formula, float>(), direction<OfTwo, Formula, double>(), direction<OfTwo, Formula, BFloat16>(),
          direction<OfTwo, Formula, Float16>()};
}

}  // namespace torchact::TORCHACT_CAPABILITY
