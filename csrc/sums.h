// The sums that the diagnostics keep, and how a tensor's statistics are merged into them.
#pragma once

#include <array>

#include "run.h"

namespace torchact {

constexpr int kSums = 6, kMoments = kSums + 1, kBinned = kMoments + kBins;

inline std::array<double, kSums> sums_of(int64_t count, const cpu::Moments& m) {
  return {double(count), m.total, m.squares, double(m.zeros), double(m.non_finite), double(m.subnormal)};
}

// NaN where there is one
inline double largest_of(const cpu::Moments& m) { return m.squares == m.squares ? m.largest : m.squares; }

// Merges what was found of `count` numbers: kMoments sums, with kBins counts before the last where there are some.
inline void merge(double*& out, int64_t count, const cpu::Statistics& s) {
  for (double value : sums_of(count, s.moments)) *out++ += value;
  for (int64_t found : s.exponents) *out++ += double(found);
  const double largest = largest_of(s.moments);
  if (!(largest <= *out) && *out == *out) *out = largest;
  ++out;
}

// Adds how many numbers there are, and how many of them lie within intervals.
inline void count(double*& out, int64_t count, const cpu::Statistics& s) {
  *out++ += double(count);
  *out++ += double(s.moments.within);
}

}  // namespace torchact
