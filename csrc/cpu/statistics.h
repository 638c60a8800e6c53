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

// What is known of some numbers' magnitudes, as their bits, which are ordered as they are; those of NaN are the largest.
template <class Bits>
struct Magnitudes {
  int64_t nonzero;
  Bits smallest, largest;  // of those that are not zero
};

// Counts numbers by the upper bits of their exponents, at most kMost of them at once. Bins are bytes, of which a vector
// has many; a count in each of its lanes is one, too.
struct ExponentBins {
  static constexpr int kShift = 23 + 2, kAtOnce = 4, kLanes = 64;
  static constexpr int64_t kMost = 1 << 12;
  static_assert(kMost / kLanes <= std::numeric_limits<uint8_t>::max());

  static int32_t bits_of(float x) { return __builtin_bit_cast(int32_t, x) & 0x7fffffff; }

  // From the largest number's bin down, some bins at a time, it is counted how many numbers reach each; all that are not
  // zero reach the smallest one's.
  static void add(const float* x, int64_t count, const Magnitudes<int32_t>& m, int64_t* bins) {
    bins[0] += count - m.nonzero;
    if (m.nonzero == 0) return;
    const int lowest = m.smallest >> kShift;
    int64_t reached = 0;
    if (m.largest >> kShift != lowest) {
      alignas(64) uint8_t bin_of[kMost];
      for (int64_t i = 0; i < count; ++i) bin_of[i] = uint8_t(bits_of(x[i]) >> kShift);
      const int64_t end = (count + kLanes - 1) / kLanes * kLanes;
      for (int64_t i = count; i < end; ++i) bin_of[i] = 0;
      for (int top = m.largest >> kShift; top > lowest; top -= kAtOnce) add_some(bin_of, end, top, lowest, reached, bins);
    }
    bins[lowest] += m.nonzero - reached;
  }

 private:
  // Adds those in bins from `top` down, but for the lowest, to those that have reached one.
  static void add_some(const uint8_t* bin_of, int64_t end, int top, int lowest, int64_t& reached, int64_t* bins) {
    uint8_t edges[kAtOnce], reaching[kAtOnce][kLanes] = {};
    for (int k = 0; k < kAtOnce; ++k) edges[k] = top - k > lowest ? top - k : std::numeric_limits<uint8_t>::max();
    for (int64_t i = 0; i < end; i += kLanes)
      for (int k = 0; k < kAtOnce; ++k)
        for (int j = 0; j < kLanes; ++j) reaching[k][j] += bin_of[i + j] >= edges[k];
    for (int k = 0; k < kAtOnce && top - k > lowest; ++k) {
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
  using Unsigned = std::make_unsigned_t<Bits>;
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
        squares[j] = with_square(squares[j], x[i + j]);
      }
    }
    for (; i < count; ++i) {
      total[0] += x[i];
      squares[0] = with_square(squares[0], x[i]);
    }
    for (int j = 0; j < kLanes; ++j) {
      m.total += total[j];
      m.squares += squares[j];
    }
  }

  static Magnitudes<Bits> magnitudes(const T* x, int64_t count) {
    Bits nonzero = 0, largest = 0;
    Unsigned below_smallest = std::numeric_limits<Unsigned>::max();  // its bits less one, which zero has none below
    for (int64_t i = 0; i < count; ++i) {
      const Bits bits = bits_of(x[i]);
      const Unsigned below = Unsigned(bits) - 1;
      nonzero += bits < 1 ? bits : 1;
      below_smallest = below < below_smallest ? below : below_smallest;
      largest = bits > largest ? bits : largest;
    }
    return {nonzero, Bits(below_smallest + 1), largest};
  }

  static int64_t count_below(const T* x, int64_t count, Bits limit) {
    Bits found = 0;
    for (int64_t i = 0; i < count; ++i) found += bits_of(x[i]) < limit;
    return found;
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
    const Magnitudes<Bits> found = magnitudes(x, count);
    const int64_t zeros = count - found.nonzero;
    const Bits normal = bits_of(T(context.smallest_normal));
    const double largest = __builtin_bit_cast(T, found.largest);
    m.zeros += zeros;
    if (largest > m.largest) m.largest = largest;
    if (found.nonzero > 0 && found.smallest < normal) m.subnormal += count_below(x, count, normal) - zeros;
    if (bits_of(std::numeric_limits<T>::infinity()) <= found.largest) m.non_finite += count_non_finite(x, count);
    for (int k = 0; k < context.intervals; ++k) m.within += count_within(x, count, T(context.low[k]), T(context.high[k]));
    if (context.bins) count_bins(x, count, found, context.bins);
  }

  static void run(const void* const* inputs, void* const*, int64_t count, const void* context_) {
    const StatisticsContext& context = *static_cast<const StatisticsContext*>(context_);
    const T* x = input<T>(inputs, 0);
    for (int64_t i = 0; i < count; i += kChunk) chunk(x + i, count - i < kChunk ? count - i : kChunk, context);
    if (context.exponents) count_exponents(x, count, context.exponents);
  }

  static void run_within(const void* const* inputs, void* const*, int64_t count, const void* context_) {
    const StatisticsContext& context = *static_cast<const StatisticsContext*>(context_);
    const T* x = input<T>(inputs, 0);
    for (int64_t i = 0; i < count; i += kChunk) {
      const int64_t some = count - i < kChunk ? count - i : kChunk;
      for (int k = 0; k < context.intervals; ++k)
        context.moments->within += count_within(x + i, some, T(context.low[k]), T(context.high[k]));
    }
  }

 private:
  // The square of a float32 number is exact in float64, where one rounding and two are the same.
  static double with_square(double sum, T x) {
#ifdef __FMA__
    if constexpr (sizeof(T) == 4) return __builtin_fma(double(x), double(x), sum);
#endif
    return sum + double(x) * x;
  }

  static void count_bins(const T* x, int64_t count, const Magnitudes<Bits>& found, int64_t* bins) {
    if constexpr (sizeof(T) == 4) {
      ExponentBins::add(x, count, found, bins);
    } else {
      float narrow[kChunk];
      for (int64_t i = 0; i < count; ++i) narrow[i] = float(x[i]);
      ExponentBins::add(narrow, count, Statistics<float>::magnitudes(narrow, count), bins);
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
    int64_t i = 0;
    if (c.inner == 1)
      for (; i + kRows <= c.outer; i += kRows, x += kRows * c.units) of_rows<kRows>(x, c, largest);
    for (; i < c.outer; ++i, x += c.units * c.inner) {
      if (c.inner == 1) {
        of_rows<1>(x, c, largest);
      } else {
        for (int64_t unit = c.begin; unit < c.end; ++unit)
          largest[unit] = of_one(x + unit * c.inner, c.inner, largest[unit]);
      }
    }
  }

 private:
  static constexpr int kRows = 4;  // that are compared before what is the largest by then is written

  template <int rows>
  static void of_rows(const S* x, const UnitsContext& c, float* largest) {
#pragma GCC ivdep
    for (int64_t unit = c.begin; unit < c.end; ++unit) {
      float most = largest[unit];
      for (int row = 0; row < rows; ++row) {
        const float m = magnitude(x[row * c.units + unit]);
        most = m > most ? m : most;
      }
      largest[unit] = most;
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
