// Where the elements lie that a thread computes at a time.
#pragma once

#include <cstdint>

#include "../geometry.h"
#include "../math.h"

namespace torchact::cuda {

constexpr int kVectorBytes = 16;  // the most that a thread reads or writes at once
constexpr int kMostLoops = 8;     // dimensions that a kernel goes through, of a geometry that it is given by value

// Division by a number that does not change, as a multiplication, in a fraction of the time of a 64-bit division:
// ⌊n / d⌋ = ⌊n m / 2^(63 + l)⌋ for 0 ≤ n < 2^63, with 2^l ≥ d and m = ⌊2^(63 + l) / d⌋ + 1 (Granlund, Montgomery 1994).
struct Divisor {
  int64_t value;
  uint64_t multiplier;
  int shift;

  Divisor() = default;

  explicit Divisor(int64_t d) : value(d), shift(0) {
    while (shift < 63 && (int64_t(1) << shift) < d) ++shift;
    multiplier = uint64_t((static_cast<unsigned __int128>(1) << (63 + shift)) / uint64_t(d) + 1);
  }

  TORCHACT_INLINE int64_t divide(int64_t n) const {
    return int64_t(uint64_t(static_cast<unsigned __int128>(2 * uint64_t(n)) * multiplier >> 64) >> shift);
  }
};

// Where a part of all the operands lies.
template <int operands>
struct Place {
  int64_t offsets[operands];  // in elements
  int count;                  // how many elements it has
};

// The elements of all operands, in parts of `width` along the innermost dimension, of which the last may be shorter.
struct Layout {
  int64_t parts;
  int64_t row;  // the size of the innermost dimension
  int width, dimensions;
  Divisor sizes[kMostLoops];  // in parts
  int64_t strides[kMostOperands][kMostLoops];
  bool repeats[kMostOperands];  // whether the elements of a part are one and the same

  // Of a coalesced geometry.
  Layout(const Geometry& g, int operands, int width) : row(g.sizes[0]), width(width), dimensions(g.dimensions) {
    parts = 1;
    for (int d = 0; d < dimensions; ++d) {
      const int step = d == 0 ? width : 1;
      sizes[d] = Divisor(g.sizes[d] / step + (g.sizes[d] % step != 0));
      parts *= sizes[d].value;
      for (int i = 0; i < operands; ++i) strides[i][d] = g.strides[i][d] * step;
    }
    for (int i = 0; i < operands; ++i) repeats[i] = g.strides[i][0] == 0;
  }

  template <int operands>
  TORCHACT_INLINE void locate(int64_t part, Place<operands>& place) const {
    int64_t index = part, rest = 0;  // in the innermost dimension, and in those around it
    if (dimensions > 1) {
      rest = sizes[0].divide(part);
      index -= rest * sizes[0].value;
    }
    const int64_t left = row - index * width;
    place.count = left < width ? int(left) : width;
    for (int i = 0; i < operands; ++i) place.offsets[i] = index * strides[i][0];
#pragma unroll 1
    for (int d = 1; d < dimensions; ++d) {
      index = rest;
      if (d + 1 < dimensions) {
        rest = sizes[d].divide(index);
        index -= rest * sizes[d].value;
      }
      for (int i = 0; i < operands; ++i) place.offsets[i] += index * strides[i][d];
    }
  }
};

inline bool is_aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % kVectorBytes == 0; }

// Whether every part of every operand begins where a vector can be read or written, and lies side by side or repeats.
inline bool has_vectors(const Geometry& g, const Operands& o, int element_size) {
  for (int i = 0; i < o.inputs + o.outputs; ++i) {
    const bool is_input = i < o.inputs;
    if (is_input && g.strides[i][0] == 0) continue;
    const void* data = is_input ? o.input[i] : o.output[i - o.inputs];
    bool aligned = g.strides[i][0] == 1 && is_aligned(data);
    for (int d = 1; d < g.dimensions; ++d) aligned &= g.strides[i][d] * element_size % kVectorBytes == 0;
    if (!aligned) return false;
  }
  return true;
}

// Moves all operands to the next index of a dimension.
inline void advance(Operands& o, const Geometry& geometry, int dimension, int element_size) {
  for (int i = 0; i < o.inputs; ++i)
    o.input[i] = static_cast<const char*>(o.input[i]) + geometry.strides[i][dimension] * element_size;
  for (int i = 0; i < o.outputs; ++i)
    o.output[i] = static_cast<char*>(o.output[i]) + geometry.strides[o.inputs + i][dimension] * element_size;
}

// Calls `start` with slices of no more dimensions than a kernel goes through, until one has an error.
template <class Start>
auto each_slice(Operands o, Geometry geometry, int element_size, Start start) {
  if (geometry.dimensions <= kMostLoops) return start(o, geometry);
  const int outermost = --geometry.dimensions;
  decltype(start(o, geometry)) error{};
  for (int64_t i = 0; i < geometry.sizes[outermost] && !error; ++i) {
    error = each_slice(o, geometry, element_size, start);
    advance(o, geometry, outermost, element_size);
  }
  return error;
}

// How many blocks it takes if each computes `each` parts.
inline int64_t block_count(int64_t parts, int64_t each) { return parts / each + (parts % each != 0); }

}  // namespace torchact::cuda
