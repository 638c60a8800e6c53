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

// Counts numbers by the upper bits of their exponents, at most kMost of them at once. Bins are bytes, of which a vector
// has many; a count in each of its lanes is one, too.
struct ExponentBins {
  static constexpr int kShift = 23 + 2, kAtOnce = 7, kLanes = 64;
  static constexpr int64_t kMost = 1 << 12;
  static_assert(kMost / kLanes <= std::numeric_limits<uint8_t>::max());

  static int32_t bits_of(float x) { return __builtin_bit_cast(int32_t, x) & 0x7fffffff; }

  // Nearly always all but zeros lie within a few bins of the largest: from there down, some bins at a time, it is counted
  // how many numbers reach each bin.
  static void add(const float* x, int64_t count, int32_t largest, int64_t* bins) {
    alignas(64) uint8_t bin_of[kMost];
    for (int64_t i = 0; i < count; ++i) bin_of[i] = uint8_t(bits_of(x[i]) >> kShift);
    const int64_t end = (count + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = count; i < end; ++i) bin_of[i] = 0;
    int top = largest >> kShift;
    int64_t reached = 0, lowest = end;
    do {
      add_some(bin_of, end, top, reached, lowest, bins);
      top -= kAtOnce;
    } while (reached + lowest < end);
    bins[0] += lowest - (end - count);
  }

 private:
  // Adds those in bins from `top` down, without bin 0, and counts how many reach the last of them and how many are in 0.
  static void add_some(const uint8_t* bin_of, int64_t end, int top, int64_t& reached, int64_t& lowest, int64_t* bins) {
    uint8_t edges[kAtOnce], reaching[kAtOnce][kLanes] = {}, in_lowest[kLanes] = {};
    for (int k = 0; k < kAtOnce; ++k) edges[k] = top > k ? top - k : std::numeric_limits<uint8_t>::max();
    for (int64_t i = 0; i < end; i += kLanes) {
      for (int k = 0; k < kAtOnce; ++k)
        for (int j = 0; j < kLanes; ++j) reaching[k][j] += bin_of[i + j] >= edges[k];
      for (int j = 0; j < kLanes; ++j) in_lowest[j] += bin_of[i + j] == 0;
    }
    lowest = sum(in_lowest);
    for (int k = 0; k < kAtOnce && top > k; ++k) {
      const int64_t reaching_bin = sum(reaching[k]);
      bins[top - k] += reaching_bin - reached;
      reached = reaching_bin;
    }
  }

  static int64_t sum(const uint8_t* counts) {
    int total = 0;
    for (int j = 0; j < kLanes; ++j) total += counts[j];
    return total;
  }
};

template <class T>
struct Statistics {
  using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;  // signed, because those are quicker to compare
  static constexpr int kLanes = 32;           // independent sums, so that they can be vectors
  static constexpr int64_t kChunk = ExponentBins::kMost;  // that the nearest cache holds from one loop to the next
  static constexpr int kMantissa = std::numeric_limits<T>::digits - 1;
  static constexpr Bits kSign = std::numeric_limits<Bits>::min();

  // The bits of a number's magnitude, which are ordered as magnitudes are; those of NaN are the largest.
  static Bits bits_of(T x) { return __builtin_bit_cast(Bits, x) & ~kSign; }

  // Sums are in float64: the squares of float32 numbers neither overflow nor underflow there. They are the first to read
  // the numbers.
  static void add_sums(const T* x, int64_t count, Moments& m) {
    double total[kLanes] = {}, squares[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      cpu::prefetch(x + i + kAheadBytes / sizeof(T), kLanes * sizeof(T));
      for (int j = 0; j < kLanes; ++j) {
        total[j] += x[i + j];
        squares[j] += double(x[i + j]) * x[i + j];
      }
    }
    for (; i < count; ++i) {
      total[0] += x[i];
      squares[0] += double(x[i]) * x[i];
    }
    for (int j = 0; j < kLanes; ++j) {
      m.total += total[j];
      m.squares += squares[j];
    }
  }

  // Returns the bits of the largest magnitude.
  static Bits add_magnitudes(const T* x, int64_t count, T smallest_normal, Moments& m) {
    const Bits smallest = bits_of(smallest_normal);
    Bits zeros = 0, below = 0, largest = 0;
    for (int64_t i = 0; i < count; ++i) {
      const Bits bits = bits_of(x[i]);
      zeros += bits == 0;
      below += bits < smallest;
      largest = bits > largest ? bits : largest;
    }
    m.zeros += zeros;
    m.subnormal += below - zeros;
    const double magnitude = __builtin_bit_cast(T, largest);
    if (magnitude > m.largest) m.largest = magnitude;
    return largest;
  }

  static int64_t count_non_finite(const T* x, int64_t count) {
    constexpr Bits greatest = __builtin_bit_cast(Bits, std::numeric_limits<T>::max());
    Bits found = 0;
    for (int64_t i = 0; i < count; ++i) found += bits_of(x[i]) > greatest;
    return found;
  }

  static int64_t count_within(const T* x, int64_t count, T low, T high) {
    Bits found = 0;
    for (int64_t i = 0; i < count; ++i) found += low <= x[i] && x[i] <= high;
    return found;
  }

  // Counts numbers by their exponent bits; several tables, since two numbers alike would wait for each other in one.
  static void count_exponents(const T* x, int64_t count, int64_t* exponents) {
    constexpr int kTables = 8, kBits = sizeof(T) == 4 ? 8 : 11;
    int32_t tables[kTables][1 << kBits] = {};
    for (int64_t i = 0; i < count; ++i) ++tables[i % kTables][bits_of(x[i]) >> kMantissa];
    for (int exponent = 0; exponent < 1 << kBits; ++exponent)
      for (int t = 0; t < kTables; ++t) exponents[exponent] += tables[t][exponent];
  }

  static void chunk(const T* x, int64_t count, const StatisticsContext& context) {
    Moments& m = *context.moments;
    add_sums(x, count, m);
    const Bits largest = add_magnitudes(x, count, T(context.smallest_normal), m);
    if (bits_of(std::numeric_limits<T>::infinity()) <= largest) m.non_finite += count_non_finite(x, count);
    for (int k = 0; k < context.intervals; ++k) m.within += count_within(x, count, T(context.low[k]), T(context.high[k]));
    if (context.bins) count_bins(x, count, largest, context.bins);
  }

  static void run(const void* const* inputs, void* const*, int64_t count, const void* context_) {
    const StatisticsContext& context = *static_cast<const StatisticsContext*>(context_);
    const T* x = input<T>(inputs, 0);
    for (int64_t i = 0; i < count; i += kChunk) chunk(x + i, count - i < kChunk ? count - i : kChunk, context);
    if (context.exponents) count_exponents(x, count, context.exponents);
  }

  static void run_within(const void* const* inputs, void* const*, int64_t count, const void* context_) {
    const StatisticsContext& context = *static_cast<const StatisticsContext*>(context_);
    for (int k = 0; k < context.intervals; ++k)
      context.moments->within += count_within(input<T>(inputs, 0), count, T(context.low[k]), T(context.high[k]));
  }

 private:
  static void count_bins(const T* x, int64_t count, Bits largest, int64_t* bins) {
    if constexpr (sizeof(T) == 4) {
      ExponentBins::add(x, count, largest, bins);
    } else {
      float narrow[kChunk];
      for (int64_t i = 0; i < count; ++i) narrow[i] = float(x[i]);
      ExponentBins::add(narrow, count, ExponentBins::bits_of(float(__builtin_bit_cast(T, largest))), bins);
    }
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
        for (int64_t unit = c.begin; unit < c.end; ++unit) {
          const float m = magnitude(x[unit]);
          largest[unit] = m > largest[unit] ? m : largest[unit];
        }
      } else {
        for (int64_t unit = c.begin; unit < c.end; ++unit)
          largest[unit] = of_one(x + unit * c.inner, c.inner, largest[unit]);
      }
    }
  }

  // By the bits of magnitudes, which are ordered as they are: a maximum of integers is a vector's at once.
  static float of_one(const S* x, int64_t count, float largest) {
    constexpr int32_t infinite = __builtin_bit_cast(int32_t, std::numeric_limits<float>::infinity());
    int32_t most = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int32_t bits = __builtin_bit_cast(int32_t, magnitude(x[i])), counted = bits > infinite ? 0 : bits;
      most = counted > most ? counted : most;
    }
    const float found = __builtin_bit_cast(float, most);
    return found > largest ? found : largest;
  }
};

}  // namespace torchact::TORCHACT_CAPABILITY
