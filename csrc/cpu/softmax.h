// Softmax and its relatives over rows, and over strips of columns that lie side by side.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "loops.h"

namespace torchact::TORCHACT_CAPABILITY {

using cpu::Normalised;
using cpu::Tile;

template <class T, Normalised kind>
struct Softmax {
  static constexpr int kLanes = 32;        // independent maxima and sums of a row: GCC takes no fewer for vectors
  static constexpr int64_t kBlock = 1024;  // entries of a row that are summed up in T; blocks are in float64

  // softmin(x) is softmax(-x).
  static TORCHACT_INLINE T signed_input(T x) { return kind == Normalised::softmin ? -x : x; }

  template <class Term>
  static double sum(int64_t size, Term term) {
    double total = 0;
    for (int64_t start = 0; start < size; start += kBlock) {
      const int64_t end = start + kBlock < size ? start + kBlock : size;
      T lanes[kLanes] = {};
      int64_t i = start;
      for (; i + kLanes <= end; i += kLanes)
        for (int j = 0; j < kLanes; ++j) lanes[j] += term(i + j);
      for (; i < end; ++i) lanes[0] += term(i);
      for (int j = 0; j < kLanes; ++j) total += lanes[j];
    }
    return total;
  }

  // NaN is left to the sum, which it makes NaN.
  static T largest(const T* x, int64_t size) {
    T lanes[kLanes];
    for (int j = 0; j < kLanes; ++j) lanes[j] = T(-math::kInfinity);
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes)
      for (int j = 0; j < kLanes; ++j) {
        const T v = signed_input(x[i + j]);
        lanes[j] = v > lanes[j] ? v : lanes[j];
      }
    for (; i < size; ++i) lanes[0] = signed_input(x[i]) > lanes[0] ? signed_input(x[i]) : lanes[0];
    for (int j = 1; j < kLanes; ++j) lanes[0] = lanes[j] > lanes[0] ? lanes[j] : lanes[0];
    return lanes[0];
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

  // The gradient of one entry, with Σ g y, or of log softmax Σ g, of its row.
  static TORCHACT_INLINE T gradient_of(T g, T y, T total) {
    if constexpr (kind == Normalised::log_softmax) return g - math::exp_nonpositive(math::at_most(y, T(0))) * total;
    return kind == Normalised::softmin ? y * (total - g) : y * (g - total);
  }

  static TORCHACT_INLINE T term(T g, T y) { return kind == Normalised::log_softmax ? g : g * y; }

  static void row_backward(const T* g, const T* y, T* grad_input, int64_t size) {
    const T total = T(sum(size, [=](int64_t i) { return term(g[i], y[i]); }));
    for_each(size, [=](int64_t i) { grad_input[i] = gradient_of(g[i], y[i], total); });
  }

  static void strip(const Tile& t, const T* x, T* y) {
    T most[Tile::kWidth], total[Tile::kWidth];
    for (int j = 0; j < t.width; ++j) most[j] = T(-math::kInfinity), total[j] = 0;
    for (int64_t k = 0; k < t.size; ++k)
      for (int j = 0; j < t.width; ++j) {
        const T v = signed_input(x[k * t.stride + j]);
        most[j] = v > most[j] ? v : most[j];
      }
    for (int64_t k = 0; k < t.size; ++k)
      for (int j = 0; j < t.width; ++j) {
        const T e = math::exp_nonpositive(signed_input(x[k * t.stride + j]) - most[j]);
        total[j] += e;
        if (kind != Normalised::log_softmax) y[k * t.stride + j] = e;
      }
    for (int j = 0; j < t.width && kind == Normalised::log_softmax; ++j) total[j] = T(__builtin_log(double(total[j])));
    for (int64_t k = 0; k < t.size; ++k)
      for (int j = 0; j < t.width; ++j) {
        const int64_t i = k * t.stride + j;
        y[i] = kind == Normalised::log_softmax ? (x[i] - most[j]) - total[j] : y[i] / total[j];
      }
  }

  static void strip_backward(const Tile& t, const T* g, const T* y, T* grad_input) {
    T total[Tile::kWidth] = {};
    for (int64_t k = 0; k < t.size; ++k)
      for (int j = 0; j < t.width; ++j) total[j] += term(g[k * t.stride + j], y[k * t.stride + j]);
    for (int64_t k = 0; k < t.size; ++k)
      for (int j = 0; j < t.width; ++j) {
        const int64_t i = k * t.stride + j;
        grad_input[i] = gradient_of(g[i], y[i], total[j]);
      }
  }

  static void forward(const void* const* inputs, void* const* outputs, int64_t, const void* tile) {
    const Tile& t = *static_cast<const Tile*>(tile);
    const T* x = input<T>(inputs, 0);
    T* y = output<T>(outputs, 0);
    if (t.stride == 1) row(x, y, t.size);
    else strip(t, x, y);
  }

  static void backward(const void* const* inputs, void* const* outputs, int64_t, const void* tile) {
    const Tile& t = *static_cast<const Tile*>(tile);
    const T* g = input<T>(inputs, 0);
    const T* y = input<T>(inputs, 1);
    T* grad_input = output<T>(outputs, 0);
    if (t.stride == 1) row_backward(g, y, grad_input, t.size);
    else strip_backward(t, g, y, grad_input);
  }
};

template <Normalised kind>
constexpr Loops softmax_loops() {
  return {direction<Softmax<float, kind>>(), direction<Softmax<double, kind>>()};
}

}  // namespace torchact::TORCHACT_CAPABILITY
