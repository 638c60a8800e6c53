// How a thread reads and writes the elements that it computes at a time.
#pragma once

#include "layout.h"
#include "numbers.h"

namespace torchact::cuda {

// Elements of one operand that lie side by side, as memory has them: those of 16 bits share a word. They are widened
// when they are needed, so that the loads of all operands are under way together.
template <int elements, int bytes>
struct Words {
  uint32_t words[elements * bytes / 4 + (elements * bytes % 4 != 0)];

  template <class Bits>
  TORCHACT_INLINE Bits get(int k) const {
    if constexpr (sizeof(Bits) == 8) return uint64_t(words[2 * k + 1]) << 32 | words[2 * k];
    if constexpr (sizeof(Bits) == 4) return words[k];
    if constexpr (sizeof(Bits) == 2) return Bits(words[k / 2] >> (k % 2 * 16));
  }

  template <class Bits>
  TORCHACT_INLINE void set(int k, Bits bits) {
    if constexpr (sizeof(Bits) == 8) {
      words[2 * k] = uint32_t(bits);
      words[2 * k + 1] = uint32_t(bits >> 32);
    }
    if constexpr (sizeof(Bits) == 4) words[k] = bits;
    if constexpr (sizeof(Bits) == 2) words[k / 2] = k % 2 == 0 ? bits : words[k / 2] | uint32_t(bits) << 16;
  }
};

struct alignas(kVectorBytes) Vector {
  uint32_t words[kVectorBytes / 4];
};

// Calls `whole` with the first element and the first word of each vector that is complete, and `one` with each other
// element.
template <int elements, class Bits, class Whole, class One>
TORCHACT_INLINE void for_each_vector(int count, Whole whole, One one) {
  constexpr int width = kVectorBytes / sizeof(Bits);
#pragma unroll
  for (int k = 0; k < elements; k += width) {
    if (elements >= width && k + width <= count) {
      whole(k, k * int(sizeof(Bits)) / 4);
    } else {
#pragma unroll
      for (int j = k; j < k + width && j < elements; ++j)
        if (j < count) one(j);
    }
  }
}

// Reads the first `count` elements, or one that all of them are.
template <class Bits, int elements, int bytes>
TORCHACT_INLINE void read(Words<elements, bytes>& to, const Bits* from, int count, bool repeats) {
  if (elements > 1 && repeats) {
    const Bits one = *from;
#pragma unroll
    for (int k = 0; k < elements; ++k) to.set(k, one);
    return;
  }
  for_each_vector<elements, Bits>(
      count,
      [&](int k, int first) {
        const Vector vector = *reinterpret_cast<const Vector*>(from + k);
#pragma unroll
        for (int i = 0; i < kVectorBytes / 4; ++i) to.words[first + i] = vector.words[i];
      },
      [&](int k) { to.set(k, from[k]); });
}

// Writes the first `count` elements.
template <class Bits, int elements, int bytes>
TORCHACT_INLINE void write(const Words<elements, bytes>& from, Bits* to, int count) {
  for_each_vector<elements, Bits>(
      count,
      [&](int k, int first) {
        Vector vector;
#pragma unroll
        for (int i = 0; i < kVectorBytes / 4; ++i) vector.words[i] = from.words[first + i];
        *reinterpret_cast<Vector*>(to + k) = vector;
      },
      [&](int k) { to[k] = from.template get<Bits>(k); });
}

}  // namespace torchact::cuda
