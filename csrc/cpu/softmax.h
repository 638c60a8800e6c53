// Softmax and its relatives over rows, and over strips of columns that lie side by side.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "loops.h"

namespace torchact::TORCHACT_CAPABILITY {

using cpu::Tile;

template <class T, Normalised kind>
struct Softmax : formulas::Softmax<T, kind> {
  using Formula = formulas::Softmax<T, kind>;
  using Formula::gradient, Formula::signed_input, Formula::term;

  static constexpr int kLanes = 32;        // independent maxima and sums of a row: GCC takes no fewer for vectors
  static constexpr int kFewer = 8;         // of them for what is left of a row
  static constexpr int64_t kBlock = 1024;  // entries of a row that are summed up in T; blocks are in float64
  static constexpr int64_t kStretch = 8;   // the same of a column

  // Applies `one` to the entries from `start` to `end`, with the lane of each: to many at once, then to fewer, so that
  // little of a short row is left to be done one by one.
  template <class One>
  static TORCHACT_INLINE void for_lanes(int64_t start, int64_t end, One one) {
    int64_t i = start;
    for (; i + kLanes <= end; i += kLanes)
      for (int j = 0; j < kLanes; ++j) one(i + j, j);
    for (; i + kFewer <= end; i += kFewer)
      for (int j = 0; j < kFewer; ++j) one(i + j, j);
    for (; i < end; ++i) one(i, 0);
  }

  // Folds the lanes into one, halves onto each other.
  template <int lanes = kLanes, class U, class Combine>
  static TORCHACT_INLINE U fold(U* values, Combine combine) {
    if constexpr (lanes > 1) {
      for (int j = 0; j < lanes / 2; ++j) values[j] = combine(values[j], values[j + lanes / 2]);
      return fold<lanes / 2>(values, combine);
    }
    return values[0];
  }

  template <class Term>
  static double sum(int64_t size, Term term) {
    double total = 0;
    for (int64_t start = 0; start < size; start += kBlock) {
      T lanes[kLanes] = {};
      for_lanes(start, start + kBlock < size ? start + kBlock : size, [&](int64_t i, int j) { lanes[j] += term(i); });
      double wide[kLanes];
      for (int j = 0; j < kLanes; ++j) wide[j] = lanes[j];
      total += fold(wide, [](double a, double b) { return a + b; });
    }
    return total;
  }

  // NaN is left to the sum, which it makes NaN.
  static T largest(const T* x, int64_t size) {
    T lanes[kLanes];
    for (int j = 0; j < kLanes; ++j) lanes[j] = T(-math::kInfinity);
    auto larger = [](T a, T b) { return a > b ? a : b; };
    for_lanes(0, size, [&](int64_t i, int j) { lanes[j] = larger(signed_input(x[i]), lanes[j]); });
    return fold(lanes, larger);
  }

  static void row(const T* x, T* y, int64_t size) {
    const T most = largest(x, size);
    if constexpr (kind == Normalised::log_softmax) {
      const double total = sum(size, [=](int64_t i) { return math::exp_nonpositive(x[i] - most); });
      const T log_total = T(__builtin_log(total));
      for_each(size, [=](int64_t i) { y[i] = (x[i] - most) - log_total; });
    } else {
      for_each(size, [=](int64_t i) { y[i] = math::exp_nonpositive(signed_input(x[i]) - most); });
      const T total = T(sum(size, [=](int64_t i) { return y[i]; }));
      for_each(size, [=](int64_t i) { y[i] = y[i] / total; });
    }
  }

  static void row_backward(const T* g, const T* y, T* grad_input, int64_t size) {
    const T total = T(sum(size, [=](int64_t i) { return term(g[i], y[i]); }));
    for_each(size, [=](int64_t i) { grad_input[i] = gradient(g[i], y[i], total); });
  }

  // Asks memory for a row of a tile that is needed soon, unless its rows lie side by side.
  static TORCHACT_INLINE void prefetch(const Tile& t, int64_t row, const T* from) {
    if (t.stride == t.width || row >= t.size) return;
    cpu::prefetch(from + row * t.stride, t.width * int64_t(sizeof(T)));
  }

  // Adds up the rows of a tile from `start` on, but no more than a stretch. Operands are what is read or written.
  template <class Term, class... Operand>
  static TORCHACT_INLINE void add_stretch(const Tile& t, int64_t start, T* total, Term term, Operand... operands) {
    const int64_t end = start + kStretch < t.size ? start + kStretch : t.size;
    for (int j = 0; j < t.width; ++j) total[j] = 0;
    for (int64_t k = start; k < end; ++k) {
      (prefetch(t, k + cpu::kAhead, operands), ...);
      for (int j = 0; j < t.width; ++j) total[j] += term(k * t.stride + j, j);
    }
  }

  // Adds up each column; a long one in stretches, whose sums are added up in float64.
  template <class Term, class... Operand>
  static TORCHACT_INLINE void sums(const Tile& t, T* total, Term term, Operand... operands) {
    add_stretch(t, 0, total, term, operands...);
    if (t.size <= kStretch) return;
    double wide[Tile::kWidth];
    for (int j = 0; j < t.width; ++j) wide[j] = total[j];
    for (int64_t start = kStretch; start < t.size; start += kStretch) {
      add_stretch(t, start, total, term, operands...);
      for (int j = 0; j < t.width; ++j) wide[j] += total[j];
    }
    for (int j = 0; j < t.width; ++j) total[j] = T(wide[j]);
  }

  template <class One, class... Operand>
  static TORCHACT_INLINE void for_tile(const Tile& t, One one, Operand... operands) {
    for (int64_t k = 0; k < t.size; ++k) {
      (prefetch(t, k + cpu::kAhead, operands), ...);
      for_each(t.width, [&](int64_t j) { one(k * t.stride + j, int(j)); });
    }
  }

  static void strip(const Tile& t, const T* x, T* y) {
    T most[Tile::kWidth], total[Tile::kWidth];
    for (int j = 0; j < t.width; ++j) most[j] = T(-math::kInfinity);
    auto raise = [&](int64_t i, int j) {
      const T v = signed_input(x[i]);
      most[j] = v > most[j] ? v : most[j];
    };
    for_tile(t, raise, x);
    if constexpr (kind == Normalised::log_softmax) {
      sums(t, total, [&](int64_t i, int j) { return math::exp_nonpositive(x[i] - most[j]); });
      for (int j = 0; j < t.width; ++j) total[j] = math::log_from_one(total[j]);
      for_tile(t, [&](int64_t i, int j) { y[i] = (x[i] - most[j]) - total[j]; }, y);
    } else {
      sums(t, total, [&](int64_t i, int j) { return y[i] = math::exp_nonpositive(signed_input(x[i]) - most[j]); }, y);
      for_tile(t, [&](int64_t i, int j) { y[i] = y[i] / total[j]; });
    }
  }

  static void strip_backward(const Tile& t, const T* g, const T* y, T* grad_input) {
    T total[Tile::kWidth];
    sums(t, total, [&](int64_t i, int) { return term(g[i], y[i]); }, g, y);
    for_tile(t, [&](int64_t i, int j) { grad_input[i] = gradient(g[i], y[i], total[j]); }, grad_input);
  }

  static void forward(const void* const* inputs, void* const* outputs, int64_t rows, const void* tile) {
    const Tile& t = *static_cast<const Tile*>(tile);
    const T* x = input<T>(inputs, 0);
    T* y = output<T>(outputs, 0);
    if (t.stride != 1) return strip(t, x, y);
    for (int64_t i = 0; i < rows; ++i, x += t.size, y += t.size) row(x, y, t.size);
  }

  static void backward(const void* const* inputs, void* const* outputs, int64_t rows, const void* tile) {
    const Tile& t = *static_cast<const Tile*>(tile);
    const T* g = input<T>(inputs, 0);
    const T* y = input<T>(inputs, 1);
    T* grad_input = output<T>(outputs, 0);
    if (t.stride != 1) return strip_backward(t, g, y, grad_input);
    for (int64_t i = 0; i < rows; ++i, g += t.size, y += t.size, grad_input += t.size)
      row_backward(g, y, grad_input, t.size);
  }
};

template <Normalised kind>
constexpr Loops softmax_loops() {
  return {direction<Softmax<float, kind>>(), direction<Softmax<double, kind>>()};
}

}  // namespace torchact::TORCHACT_CAPABILITY
