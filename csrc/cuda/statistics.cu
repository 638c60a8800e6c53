// One pass over a tensor for all that the diagnostics want to know of it.
#include <algorithm>

#include "access.h"
#include "kernels.h"
#include "launch.h"

namespace torchact::cuda {

using namespace TORCHACT_CAPABILITY;

namespace {

constexpr int kThreads = 256;
constexpr int64_t kEnoughBlocks = 1024;  // more than run at once; each thread takes its share of a large tensor

enum class Counted { moments, bins, within };

// What kernels are given by value.
struct Task {
  Layout layout;
  Type type;
  const void* input;
  double smallest_normal;
  Intervals intervals;
};

// How many sums there are, in the order in which they are asked for, before the bins and the largest magnitude.
template <Counted counted>
constexpr int kSums = counted == Counted::within ? 2 : 6;

// What a thread has seen. Sums are in float64, so that squares neither overflow nor underflow.
template <class C, Counted counted>
struct Seen {
  double sums[kSums<counted>] = {};
  math::Bits<C> largest = 0;  // the bits of the largest magnitude, which are ordered as magnitudes are, and then NaN

  TORCHACT_INLINE void add(C x, const Task& task) {
    sums[0] += 1;
    if constexpr (counted == Counted::within) {
      for (int k = 0; k < task.intervals.count; ++k)
        sums[1] += C(task.intervals.low[k]) <= x && x <= C(task.intervals.high[k]);
    } else {
      const auto bits = __builtin_bit_cast(math::Bits<C>, math::absolute(x));
      const auto normal = __builtin_bit_cast(math::Bits<C>, C(task.smallest_normal));
      const auto greatest = __builtin_bit_cast(math::Bits<C>, math::kGreatest<C>);
      sums[1] += x;
      sums[2] += double(x) * double(x);
      sums[3] += bits == 0;
      sums[4] += bits > greatest;
      sums[5] += bits != 0 && bits < normal;
      largest = bits > largest ? bits : largest;
    }
  }
};

// Bins are of the upper bits of float32's exponents.
template <class C>
TORCHACT_INLINE int bin_of(C x) {
  return int(__builtin_bit_cast(uint32_t, math::absolute(float(x))) >> (23 + 2));
}

// Merges what was seen into `sums`: a block sums it up, and adds its sums to those of the others.
template <class C, int elements, Counted counted>
__global__ void __launch_bounds__(kThreads) reduce(const __grid_constant__ Task task, double* sums) {
  constexpr int count = kSums<counted>;
  __shared__ double shared[count][kThreads];
  __shared__ math::Bits<C> magnitudes[kThreads];
  __shared__ unsigned bins[kBins];
  const int thread = int(threadIdx.x);
  if (counted == Counted::bins && thread < kBins) bins[thread] = 0;
  __syncthreads();
  Seen<C, counted> seen;
  for (int64_t part = int64_t(blockIdx.x) * kThreads + thread; part < task.layout.parts;
       part += int64_t(gridDim.x) * kThreads) {
    Place<1> place;
    task.layout.locate(part, place);
    with_number<C, false>(task.type, [&](auto number) {
      using Number = decltype(number);
      using Bits = typename Number::Bits;
      Words<elements, sizeof(C)> words;
      read(words, static_cast<const Bits*>(task.input) + place.offsets[0], place.count, task.layout.repeats[0]);
#pragma unroll
      for (int k = 0; k < elements; ++k)
        if (k < place.count) {
          const C x = Number::widen(words.template get<Bits>(k));
          seen.add(x, task);
          if constexpr (counted == Counted::bins) atomicAdd(&bins[bin_of(x)], 1u);
        }
    });
  }
  for (int i = 0; i < count; ++i) shared[i][thread] = seen.sums[i];
  magnitudes[thread] = seen.largest;
  for (int step = kThreads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (thread >= step) continue;
    for (int i = 0; i < count; ++i) shared[i][thread] += shared[i][thread + step];
    magnitudes[thread] = max(magnitudes[thread], magnitudes[thread + step]);
  }
  __syncthreads();
  if (thread < count) atomicAdd(&sums[thread], shared[thread][0]);
  if constexpr (counted == Counted::within) return;
  if (counted == Counted::bins && thread < kBins) atomicAdd(&sums[count + thread], double(bins[thread]));
  if (thread == 0) {
    const double largest = __builtin_bit_cast(C, magnitudes[0]);
    double* result = &sums[count + (counted == Counted::bins ? kBins : 0)];
    atomicMax(reinterpret_cast<unsigned long long*>(result), __builtin_bit_cast(unsigned long long, largest));
  }
}

cudaLaunchConfig_t configuration_for(int64_t parts, void* stream) {
  return configuration(std::clamp(block_count(parts, kThreads), int64_t(1), kEnoughBlocks), kThreads, stream);
}

template <class C, Counted counted>
cudaError_t start(const Operands& o, const Geometry& geometry, Type type, const Intervals& intervals, double* sums,
                  void* stream) {
  constexpr int most = sizeof(C) == 4 ? 8 : 4;
  const bool vectors = has_vectors(geometry, o, size_of(type));
  const Task task{Layout(geometry, 1, vectors ? most : 1), type, o.input[0], smallest_normal(type), intervals};
  const cudaLaunchConfig_t c = configuration_for(task.layout.parts, stream);
  cudaLaunchKernelEx(&c, vectors ? &reduce<C, most, counted> : &reduce<C, 1, counted>, task, sums);
  return cudaGetLastError();
}

template <Counted counted>
const char* start(const Operands& o, Type type, const Intervals& intervals, double* sums, void* stream) {
  return message(each_slice(o, coalesced(o.geometry, 1), size_of(type), [&](const Operands& slice, const Geometry& g) {
    return type == Type::float64 ? start<double, counted>(slice, g, type, intervals, sums, stream)
                                 : start<float, counted>(slice, g, type, intervals, sums, stream);
  }));
}

// Raises each unit's largest magnitude to that of its entries. NaN does not count.
template <class C>
__global__ void __launch_bounds__(kThreads)
    raise(const void* input, Type type, int64_t entries, const __grid_constant__ Divisor inner,
          const __grid_constant__ Divisor units, float* largest) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < entries; i += int64_t(gridDim.x) * kThreads) {
    float magnitude = 0;
    with_number<C, false>(type, [&](auto number) {
      using Number = decltype(number);
      magnitude = math::absolute(float(Number::widen(static_cast<const typename Number::Bits*>(input)[i])));
    });
    const int64_t row = inner.divide(i);
    float* found = &largest[row - units.divide(row) * units.value];
    if (magnitude > *found) atomicMax(reinterpret_cast<int*>(found), __builtin_bit_cast(int, magnitude));
  }
}

}  // namespace

const char* add_statistics(const Operands& operands, Type type, bool binned, double* sums, void* stream) {
  return binned ? start<Counted::bins>(operands, type, {}, sums, stream)
                : start<Counted::moments>(operands, type, {}, sums, stream);
}

const char* add_within(const Operands& operands, Type type, const Intervals& intervals, double* sums, void* stream) {
  return start<Counted::within>(operands, type, intervals, sums, stream);
}

const char* add_largest_of_units(const void* input, Type type, int64_t outer, int64_t units, int64_t inner,
                                 float* largest, void* stream) {
  const int64_t entries = outer * units * inner;
  const cudaLaunchConfig_t c = configuration_for(entries, stream);
  cudaLaunchKernelEx(&c, type == Type::float64 ? &raise<double> : &raise<float>, input, type, entries, Divisor(inner),
                     Divisor(units), largest);
  return message(cudaGetLastError());
}

}  // namespace torchact::cuda
