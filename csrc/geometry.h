// Types, shapes and strides: what results look like, and the order to go through several tensors in. Free of torch.
#pragma once

#include <cstdint>
#include <utility>

namespace torchact {

// The types that tensors have. Numbers of 16 bits are computed in float32.
enum class Type { float32, float64, bfloat16, float16, count };

inline int size_of(Type type) { return type == Type::float64 ? 8 : type == Type::float32 ? 4 : 2; }

inline double smallest_normal(Type type) {
  return type == Type::float64 ? 0x1p-1022 : type == Type::float16 ? 0x1p-14 : 0x1p-126;
}

constexpr int kBins = 64;  // of exponents, four each, of those that float32 has

constexpr int kMostDimensions = 64;
constexpr int kMostOperands = 5;  // grad_output, two operands and their gradients

struct Geometry {
  int dimensions = 0;
  int64_t sizes[kMostDimensions];
  int64_t strides[kMostOperands][kMostDimensions];
};

// What an operator takes and gives back, on either device: `inputs` tensors, broadcast, and then the results.
struct Operands {
  Geometry geometry;
  int inputs = 0, outputs = 0;
  const void* input[3];
  void* output[2];
  int device = -1;  // the index of the GPU, or -1
};

inline int64_t element_count(const Geometry& g) {
  int64_t count = 1;
  for (int d = 0; d < g.dimensions; ++d) count *= g.sizes[d];
  return count;
}

// Whether dimension `a` lies within dimension `b`, by the first operand that tells; -1 where none does.
inline int lies_within(const Geometry& g, int operands, int a, int b) {
  for (int i = 0; i < operands; ++i) {
    const int64_t stride_a = g.strides[i][a], stride_b = g.strides[i][b];
    if (stride_a == 0 || stride_b == 0) continue;  // broadcast: it may lie anywhere
    if (stride_a != stride_b) return stride_a < stride_b;
    if (g.sizes[a] < g.sizes[b]) return 1;
  }
  return -1;
}

// Writes the order of dimensions from the innermost outwards, the one that torch's own operators take.
inline void order_dimensions(const Geometry& g, int operands, int* order) {
  for (int i = 0; i < g.dimensions; ++i) order[i] = g.dimensions - 1 - i;
  for (int i = 1; i < g.dimensions; ++i) {
    int at = i;
    for (int j = i - 1; j >= 0; --j) {
      const int within = lies_within(g, operands, order[at], order[j]);
      if (within == 0) break;
      if (within == 1) {
        std::swap(order[at], order[j]);
        at = j;
      }
    }
  }
}

// Whether an operand lies side by side in the order of its dimensions. The strides of dimensions of size 1 do not count.
inline bool is_contiguous(const Geometry& g, int operand) {
  int64_t expected = 1;
  for (int d = g.dimensions - 1; d >= 0; --d) {
    if (g.sizes[d] == 0) return true;
    if (g.sizes[d] != 1 && g.strides[operand][d] != expected) return false;
    expected *= g.sizes[d];
  }
  return true;
}

inline bool all_contiguous(const Geometry& g, int operands) {
  for (int i = 0; i < operands; ++i)
    if (!is_contiguous(g, i)) return false;
  return true;
}

inline bool same_strides(const Geometry& g, int a, int b) {
  for (int d = 0; d < g.dimensions; ++d)
    if (g.strides[a][d] != g.strides[b][d]) return false;
  return true;
}

// Gives operand `result` strides without gaps: those of torch's own operators for the first `operands`. They are the
// operands' own where these have all the same and no gaps, and else in the order that the operands lie in.
inline void lay_out(Geometry& g, int operands, int result) {
  int order[kMostDimensions];
  if (all_contiguous(g, operands)) {
    for (int i = 0; i < g.dimensions; ++i) order[i] = g.dimensions - 1 - i;
  } else {
    order_dimensions(g, operands, order);
  }
  int64_t stride = 1;
  bool dense = true, alike = !all_contiguous(g, operands);
  for (int i = 0; i < g.dimensions; ++i) {
    const int d = order[i];
    g.strides[result][d] = stride;
    dense &= g.sizes[d] == 1 || g.strides[0][d] == stride;
    stride *= g.sizes[d] > 0 ? g.sizes[d] : 1;
  }
  for (int i = 1; i < operands; ++i) alike &= same_strides(g, 0, i);
  if (dense && alike)
    for (int d = 0; d < g.dimensions; ++d) g.strides[result][d] = g.strides[0][d];
}

// Returns the same elements with as few dimensions as can be, the innermost first.
inline Geometry coalesced(const Geometry& g, int operands) {
  int order[kMostDimensions];
  order_dimensions(g, operands, order);
  Geometry result;
  auto joins = [&](int d) {
    if (result.dimensions == 0) return false;
    const int last = result.dimensions - 1;
    for (int i = 0; i < operands; ++i)
      if (g.strides[i][d] != result.strides[i][last] * result.sizes[last]) return false;
    return true;
  };
  for (int k = 0; k < g.dimensions; ++k) {
    const int d = order[k];
    if (g.sizes[d] == 1) continue;
    if (joins(d)) {
      result.sizes[result.dimensions - 1] *= g.sizes[d];
      continue;
    }
    result.sizes[result.dimensions] = g.sizes[d];
    for (int i = 0; i < operands; ++i) result.strides[i][result.dimensions] = g.strides[i][d];
    ++result.dimensions;
  }
  if (result.dimensions == 0) {
    result.dimensions = 1;
    result.sizes[0] = 1;
    for (int i = 0; i < operands; ++i) result.strides[i][0] = 1;
  }
  return result;
}

}  // namespace torchact
