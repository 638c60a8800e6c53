// One pass over numbers that lie side by side, for all that the diagnostics want to know of them.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels.h"
#include "loops.h"

namespace torchact::TORCHACT_CAPABILITY {

using cpu::Moments;
using cpu::StatisticsContext;
using cpu::UnitsContext;

template <class T>
struct Statistics {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  static constexpr int kLanes = 32;            // independent sums, so that they can be vectors
  static constexpr int64_t kChunk = 1 << 12;   // numbers whose counts are kept in lanes of 32 bits
  static constexpr int kMantissa = std::numeric_limits<T>::digits - 1;

  // What each lane has seen. Sums are in float64: the squares of float32 numbers neither overflow nor underflow there.
  struct Lanes {
    double total[kLanes] = {}, squares[kLanes] = {};
    T largest[kLanes] = {};
    int32_t zeros[kLanes] = {}, subnormal[kLanes] = {}, non_finite[kLanes] = {}, within[kLanes] = {};
  };

  static void see(Lanes& lanes, const T* x, T smallest) {
    constexpr T greatest = std::numeric_limits<T>::max();
    for (int j = 0; j < kLanes; ++j) {
      const T magnitude = x[j] < 0 ? -x[j] : x[j];
      lanes.largest[j] = magnitude > lanes.largest[j] ? magnitude : lanes.largest[j];
      lanes.zeros[j] += x[j] == 0;
      lanes.subnormal[j] += magnitude < smallest;
      lanes.non_finite[j] += !(magnitude <= greatest);
    }
    for (int j = 0; j < kLanes; ++j) {
      lanes.total[j] += x[j];
      lanes.squares[j] += double(x[j]) * x[j];
    }
  }

  static void count_within(Lanes& lanes, const T* x, T low, T high) {
    for (int j = 0; j < kLanes; ++j) lanes.within[j] += low <= x[j] && x[j] <= high;
  }

  static void add(Moments& moments, const Lanes& lanes) {
    for (int j = 0; j < kLanes; ++j) {
      moments.total += lanes.total[j];
      moments.squares += lanes.squares[j];
      moments.zeros += lanes.zeros[j];
      moments.subnormal += lanes.subnormal[j] - lanes.zeros[j];
      moments.non_finite += lanes.non_finite[j];
      moments.within += lanes.within[j];
      if (double(lanes.largest[j]) > moments.largest) moments.largest = lanes.largest[j];
    }
  }

  static void chunk(const T* x, int64_t count, const StatisticsContext& context) {
    Lanes lanes;
    const T smallest = T(context.smallest_normal);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      see(lanes, x + i, smallest);
      for (int k = 0; k < context.intervals; ++k) count_within(lanes, x + i, T(context.low[k]), T(context.high[k]));
    }
    add(*context.moments, lanes);
    for (; i < count; ++i) one(x[i], context);
  }

  static void one(T x, const StatisticsContext& context) {
    Moments& m = *context.moments;
    const T magnitude = x < 0 ? -x : x;
    m.total += x;
    m.squares += double(x) * x;
    m.zeros += x == 0;
    m.subnormal += x != 0 && magnitude < T(context.smallest_normal);
    m.non_finite += !(magnitude <= std::numeric_limits<T>::max());
    for (int k = 0; k < context.intervals; ++k) m.within += T(context.low[k]) <= x && x <= T(context.high[k]);
    if (double(magnitude) > m.largest) m.largest = magnitude;
  }

  // Counts numbers by their exponent bits; several tables, since two numbers alike would wait for each other in one.
  static void count_exponents(const T* x, int64_t count, int64_t* exponents) {
    constexpr int kTables = 8, kBits = sizeof(T) == 4 ? 8 : 11;
    int32_t tables[kTables][1 << kBits] = {};
    for (int64_t i = 0; i < count; ++i)
      ++tables[i % kTables][__builtin_bit_cast(Bits, x[i]) >> kMantissa & ((1 << kBits) - 1)];
    for (int exponent = 0; exponent < 1 << kBits; ++exponent)
      for (int t = 0; t < kTables; ++t) exponents[exponent] += tables[t][exponent];
  }

  // The bin that a number's exponent is in, as float32 has it.
  static uint32_t bin_of(T x) {
    if constexpr (sizeof(T) == 4)
      return __builtin_bit_cast(Bits, x) >> (kMantissa + 2) & (cpu::kBins - 1);
    else
      return __builtin_bit_cast(uint32_t, float(x)) >> (23 + 2) & (cpu::kBins - 1);
  }

  // Counts numbers by the upper bits of their exponents: pairs of them, which takes half as many steps.
  static void count_bins(const T* x, int64_t count, int64_t* bins) {
    constexpr int kTables = 2, kPairs = cpu::kBins * cpu::kBins;
    int32_t tables[kTables][kPairs] = {};
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
      ++tables[0][bin_of(x[i]) * cpu::kBins + bin_of(x[i + 1])];
      ++tables[1][bin_of(x[i + 2]) * cpu::kBins + bin_of(x[i + 3])];
    }
    for (; i < count; ++i) ++bins[bin_of(x[i])];
    int32_t second[cpu::kBins] = {};
    for (int first = 0; first < cpu::kBins; ++first) {
      int64_t sum = 0;
      for (int j = 0; j < cpu::kBins; ++j) {
        const int32_t both = tables[0][first * cpu::kBins + j] + tables[1][first * cpu::kBins + j];
        sum += both;
        second[j] += both;
      }
      bins[first] += sum;
    }
    for (int j = 0; j < cpu::kBins; ++j) bins[j] += second[j];
  }

  static void run(const void* const* inputs, void* const*, int64_t count, const void* context_) {
    const StatisticsContext& context = *static_cast<const StatisticsContext*>(context_);
    const T* x = input<T>(inputs, 0);
    for (int64_t i = 0; i < count; i += kChunk) chunk(x + i, count - i < kChunk ? count - i : kChunk, context);
    if (context.exponents) count_exponents(x, count, context.exponents);
    if (context.bins) count_bins(x, count, context.bins);
  }
};

// Raises each unit's largest magnitude to that of its numbers. NaN does not count.
template <class T>
struct LargestOfUnits {
  using N = Number<T>;
  using S = typename N::Stored;

  static float magnitude(S x) { return math::absolute(float(N::load(x))); }

  static void run(const void* const* inputs, void* const* outputs, int64_t, const void* context) {
    const UnitsContext& c = *static_cast<const UnitsContext*>(context);
    const S* x = input<S>(inputs, 0);
    float* largest = output<float>(outputs, 0);
    for (int64_t i = 0; i < c.outer; ++i, x += c.units * c.inner) {
      if (c.inner == 1) {
        for (int64_t unit = 0; unit < c.units; ++unit) {
          const float m = magnitude(x[unit]);
          largest[unit] = m > largest[unit] ? m : largest[unit];
        }
      } else {
        for (int64_t unit = 0; unit < c.units; ++unit) largest[unit] = of_one(x + unit * c.inner, c.inner, largest[unit]);
      }
    }
  }

  static float of_one(const S* x, int64_t count, float largest) {
    constexpr int kLanes = 16;
    float lanes[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
      for (int j = 0; j < kLanes; ++j) {
        const float m = magnitude(x[i + j]);
        lanes[j] = m > lanes[j] ? m : lanes[j];
      }
    for (; i < count; ++i) largest = magnitude(x[i]) > largest ? magnitude(x[i]) : largest;
    for (float lane : lanes) largest = lane > largest ? lane : largest;
    return largest;
  }
};

}  // namespace torchact::TORCHACT_CAPABILITY
