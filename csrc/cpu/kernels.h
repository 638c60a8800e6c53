// The loops of one instruction set, as a table of functions on raw memory. Free of torch.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "../activations.h"
#include "../geometry.h"

namespace torchact::cpu {

// Applies a function to `count` numbers that lie side by side. An output may be an input. `context` is what the function
// needs besides: a formula's parameters (const double*), or a table.
using Loop = void (*)(const void* const* inputs, void* const* outputs, int64_t count, const void* context);

constexpr std::size_t kTypes = std::size_t(Type::count), kComputed = 2;  // the first two, in which others are computed

struct Direction {
  Loop forward;   // (input) -> (output), or (first, second) -> (output)
  Loop backward;  // (grad_output, saved) -> (grad_input), or (grad_output, first, second) -> (their gradients)
};

// By type; null for those of 16 bits where they are to be widened first.
using Loops = std::array<Direction, kTypes>;

struct Half {
  Loop widen;   // (16-bit numbers) -> (float32)
  Loop narrow;  // (float32) -> (16-bit numbers), rounded to nearest, ties to even
  Direction table;  // by one with an entry for each number: its value in the type itself, or its derivative in float32
};

// What one pass over a tensor sums up. All but `largest` add up over the parts of a tensor.
struct Moments {
  double total = 0, squares = 0;
  int64_t zeros = 0, subnormal = 0, non_finite = 0, within = 0;  // within: in one of the context's intervals
  double largest = 0;                                            // of the magnitudes of all that are no NaN
};

struct StatisticsContext {
  Moments* moments;
  int64_t* exponents;  // how many numbers have each exponent, or null
  int64_t* bins;       // how many have exponents in each bin, or null
  int intervals;       // which must not overlap
  const double *low, *high;
  double smallest_normal;  // of the type that the tensor has
};

constexpr int kExponents = 2048;  // as many as float64 has; the other types have 256

// Numbers that lie side by side: `outer` times `units` times `inner` of them; of the units, those from `begin` to `end`.
struct UnitsContext {
  int64_t outer, units, inner, begin, end;
};

// Columns that lie side by side, `width` of them, each with `size` entries `stride` apart; with stride 1 rows, one after
// the other.
struct Tile {
  static constexpr int kWidth = 256;  // the most
  int64_t size, stride;
  int width;
  void* room = nullptr;  // for a float32 number an entry of bfloat16
};

constexpr int64_t kAhead = 4;  // how many short lines before it is needed memory is asked for one

// Asks memory for what is needed soon: it does not foresee short lines that are far apart. GCC takes a function that does
// nothing else for one without effect, and leaves out calls that it has not inlined by then.
[[gnu::always_inline]] inline void prefetch(const void* data, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(data) + i);
}

struct Kernels {
  const char* name;
  std::array<Loops, std::size_t(Elementwise::count)> elementwise;
  std::array<Loops, std::size_t(Pair::count)> pair;
  std::array<Half, 2> half;  // bfloat16, float16
  std::array<Loop, kComputed> log_sigmoid;  // (x) -> (logsigmoid, exp(-|x|))
  std::array<Loops, std::size_t(Normalised::count)> softmax;  // whose context is a Tile; none of float16
  std::array<Loop, kComputed> statistics;
  std::array<Loop, kComputed> within;  // counts only what lies within the intervals of a StatisticsContext
  std::array<Loop, kTypes> largest_of_units;  // (x) -> (largest, float32), whose context is a UnitsContext
};

// Each is compiled with the instructions that it is named for, and must run only where they are.
extern const Kernels kBaseline;
#ifdef TORCHACT_X86
extern const Kernels kAVX2;
extern const Kernels kAVX512;
#endif

}  // namespace torchact::cpu
