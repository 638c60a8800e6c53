// Softmax and its relatives over rows, and over strips of columns that lie side by side.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels.h"
#include "loops.h"

namespace torchact::TORCHACT_CAPABILITY {

using cpu::Tile;

template <class Type, Normalised kind>
struct Softmax : formulas::Softmax<typename Number<Type>::Computed, kind> {
  using N = Number<Type>;
  using S = typename N::Stored;
  using T = typename N::Computed;
  using Formula = formulas::Softmax<T, kind>;
  using Formula::gradient, Formula::signed_input, Formula::term;

  static constexpr bool is_stored_as_computed = std::is_same_v<S, T>;

  static constexpr int kLanes = 32;        // independent maxima and sums of a row: GCC takes no fewer for vectors
  static constexpr int kFewer = 8;         // of them for what is left of a row
  static constexpr int64_t kRows = 16;     // the most rows that are worked on together
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

  // Folds the lanes into one, halves onto each other. Loops that GCC unrolls it would not vectorise.
  template <int lanes = kLanes, class U, class Combine>
  static TORCHACT_INLINE U fold(U* values, Combine combine) {
    if constexpr (lanes > 1) {
#pragma GCC unroll 1
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
#pragma GCC unroll 1
      for (int j = 0; j < kLanes; ++j) wide[j] = lanes[j];
      total += fold(wide, [](double a, double b) { return a + b; });
    }
    return total;
  }

  // NaN is left to the sum, which it makes NaN.
  static T largest(const S* x, int64_t size) {
    T lanes[kLanes];
    for (int j = 0; j < kLanes; ++j) lanes[j] = T(-math::kInfinity);
    auto larger = [](T a, T b) { return a > b ? a : b; };
    for_lanes(0, size, [&](int64_t i, int j) { lanes[j] = larger(signed_input(N::load(x[i])), lanes[j]); });
    return fold(lanes, larger);
  }

  // Of the exponentials.
  static TORCHACT_INLINE T unknown_least() { return math::unknown(math::kLeast<T, math::Reach::own>); }

  // Each step is taken for some rows before the next one: what a row's maximum or sum is known by is long after its
  // entries were read, and short rows would wait for it one by one. There is room for as many exponentials, which may be
  // that of the results.
  static void some_rows(const S* x, S* y, T* powers, int64_t size, int count) {
    T most[kRows], least = unknown_least();
    for (int r = 0; r < count; ++r) most[r] = largest(x + r * size, size);
    if constexpr (kind == Normalised::log_softmax) {
      double total[kRows];
      for (int r = 0; r < count; ++r)
        total[r] = sum(size, [=, row = x + r * size, most = most[r]](int64_t i) {
          return math::exp_nonpositive(N::load(row[i]) - most, least);
        });
      T log_total[kRows];
      for (int r = 0; r < count; ++r) log_total[r] = T(math::log_from_one(total[r]));
      for_rows(size, count, [&](int64_t i, int r) { y[i] = N::store((N::load(x[i]) - most[r]) - log_total[r]); });
    } else {
      for_rows(size, count, [&](int64_t i, int r) {
        powers[i] = math::exp_nonpositive(signed_input(N::load(x[i])) - most[r], least);
      });
      math::Divisor<T> total[kRows];
      for (int r = 0; r < count; ++r)
        total[r] = math::Divisor<T>(T(sum(size, [row = powers + r * size](int64_t i) { return row[i]; })));
      for_rows(size, count, [&](int64_t i, int r) { y[i] = N::store(total[r].under(powers[i])); });
    }
  }

  static void some_rows_backward(const S* g, const S* y, S* grad_input, int64_t size, int count) {
    T total[kRows], least = unknown_least(), most = math::unknown(T(0));
    for (int r = 0; r < count; ++r)
      total[r] = T(sum(size, [g = g + r * size, y = y + r * size](int64_t i) {
        return term(N::load(g[i]), N::load(y[i]));
      }));
    for_rows(size, count, [&](int64_t i, int r) {
      grad_input[i] = N::store(gradient(N::load(g[i]), N::load(y[i]), total[r], least, most));
    });
  }

  // Applies `one` to the entries of some rows, with the number of each row.
  template <class One>
  static TORCHACT_INLINE void for_rows(int64_t size, int count, One one) {
    for (int r = 0; r < count; ++r) for_each(r * size, (r + 1) * size, [=](int64_t i) { one(i, r); });
  }

  // Asks memory for a row of a tile that is needed soon, unless its rows lie side by side.
  static TORCHACT_INLINE void prefetch(const Tile& t, int64_t row, const S* from) {
    if (t.stride == t.width || row >= t.size) return;
    cpu::prefetch(from + row * t.stride, t.width * int64_t(sizeof(S)));
  }

  // Adds up the rows of a tile from `start` on, but no more than a stretch. Operands are what is read or written.
  template <class Term, class... Operand>
  static TORCHACT_INLINE void add_stretch(const Tile& t, int64_t start, T* total, Term term, Operand... operands) {
    const int64_t end = start + kStretch < t.size ? start + kStretch : t.size;
    for (int j = 0; j < t.width; ++j) total[j] = 0;
    for (int64_t k = start; k < end; ++k) {
      (prefetch(t, k + cpu::kAhead, operands), ...);
      for (int j = 0; j < t.width; ++j) total[j] += term(k, j);
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
      for_each(t.width, [&](int64_t j) { one(k, int(j)); });
    }
  }

  // Exponentials are put where the results come if these are of their type, else into the tile's room, side by side.
  static void strip(const Tile& t, const S* x, S* y) {
    T most[Tile::kWidth], total[Tile::kWidth], least = unknown_least();
    for (int j = 0; j < t.width; ++j) most[j] = T(-math::kInfinity);
    const int64_t stride = t.stride;
    const auto at = [=](int64_t k, int j) { return signed_input(N::load(x[k * stride + j])); };
    const auto raise = [&](int64_t k, int j) {
      const T v = at(k, j);
      most[j] = v > most[j] ? v : most[j];
    };
    for_tile(t, raise, x);
    if constexpr (kind == Normalised::log_softmax) {
      sums(t, total, [&](int64_t k, int j) { return math::exp_nonpositive(at(k, j) - most[j], least); });
      for (int j = 0; j < t.width; ++j) total[j] = math::log_from_one(total[j]);
      for_tile(t, [&](int64_t k, int j) { y[k * stride + j] = N::store((at(k, j) - most[j]) - total[j]); }, y);
    } else {
      T* powers;
      int64_t apart = t.width;
      if constexpr (is_stored_as_computed) {
        powers = y;
        apart = stride;
      } else {
        powers = static_cast<T*>(t.room);
      }
      const auto power = [&](int64_t k, int j) {
        return powers[k * apart + j] = math::exp_nonpositive(at(k, j) - most[j], least);
      };
      sums(t, total, power, y);
      math::Divisor<T> divisor[Tile::kWidth];
      for (int j = 0; j < t.width; ++j) divisor[j] = math::Divisor<T>(total[j]);
      for_tile(t, [&](int64_t k, int j) { y[k * stride + j] = N::store(divisor[j].under(powers[k * apart + j])); });
    }
  }

  static void strip_backward(const Tile& t, const S* g, const S* y, S* grad_input) {
    T total[Tile::kWidth], least = unknown_least(), most = math::unknown(T(0));
    const int64_t stride = t.stride;
    const auto of_tile = [=](const S* from, int64_t k, int j) { return N::load(from[k * stride + j]); };
    sums(t, total, [&](int64_t k, int j) { return term(of_tile(g, k, j), of_tile(y, k, j)); }, g, y);
    const auto one = [&](int64_t k, int j) {
      grad_input[k * stride + j] = N::store(gradient(of_tile(g, k, j), of_tile(y, k, j), total[j], least, most));
    };
    for_tile(t, one, grad_input);
  }

  static void forward(const void* const* inputs, void* const* outputs, int64_t rows, const void* tile) {
    const Tile& t = *static_cast<const Tile*>(tile);
    const S* x = input<S>(inputs, 0);
    S* y = output<S>(outputs, 0);
    if (t.stride != 1) return strip(t, x, y);
    T* powers = static_cast<T*>(t.room);
    if constexpr (is_stored_as_computed) powers = y;
    for (int64_t i = 0; i < rows; i += kRows) {
      const int64_t start = i * t.size;
      some_rows(x + start, y + start, powers + start, t.size, int(std::min(kRows, rows - i)));
    }
  }

  static void backward(const void* const* inputs, void* const* outputs, int64_t rows, const void* tile) {
    const Tile& t = *static_cast<const Tile*>(tile);
    const S* g = input<S>(inputs, 0);
    const S* y = input<S>(inputs, 1);
    S* grad_input = output<S>(outputs, 0);
    if (t.stride != 1) return strip_backward(t, g, y, grad_input);
    for (int64_t i = 0; i < rows; i += kRows)
      some_rows_backward(g + i * t.size, y + i * t.size, grad_input + i * t.size, t.size, int(std::min(kRows, rows - i)));
  }
};

template <Normalised kind>
constexpr Loops softmax_loops() {
  return {direction<Softmax<float, kind>>(), direction<Softmax<double, kind>>(), direction<Softmax<BFloat16, kind>>()};
}

}  // namespace torchact::TORCHACT_CAPABILITY
