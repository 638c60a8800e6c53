// The kernel that applies a formula to tensors of any strides, for each of the formulas.
#include "kernels.h"

#include <algorithm>
#include <type_traits>

#include "access.h"
#include "functions.h"
#include "launch.h"

namespace torchact::cuda {
namespace {

constexpr int kThreads = 128;

// What a kernel is given by value, besides the function.
struct Task {
  Layout layout;
  Type type;
  const void* input[3];
  void* output[2];
};

// How many elements a thread computes at a time, which bounds the code, and how many times it does so. It reads them
// all before it computes any, since memory is slow to answer and answers many requests at once.
template <class Function>
constexpr int kElements = std::is_same_v<typename Function::Computed, float> || Function::wide ? 8 : 4;

template <int elements, int inputs>
constexpr int kSteps = elements == 1 || inputs == 1 ? 2 : 1;

// A part of the operands, in one thread.
template <class Function, int elements>
struct Part {
  using C = typename Function::Computed;
  static constexpr int inputs = Function::inputs, outputs = Function::outputs;

  Place<inputs + outputs> place;
  Words<elements, sizeof(C)> words[inputs];

  TORCHACT_INLINE void read(const Task& task, int64_t part) {
    task.layout.locate(part, place);
    with_bits<C, Function::wide>(task.type, [&](auto bits) {
#pragma unroll
      for (int i = 0; i < inputs; ++i)
        cuda::read(words[i], static_cast<const decltype(bits)*>(task.input[i]) + place.offsets[i], place.count,
                   task.layout.repeats[i]);
    });
  }

  TORCHACT_INLINE void compute(const Task& task, const Function& function) const {
    C in[elements][inputs], out[elements][outputs];
    Words<elements, sizeof(C)> results[outputs];
    with_number<C, Function::wide>(task.type, [&](auto number) {
      using Number = decltype(number);
#pragma unroll
      for (int k = 0; k < elements; ++k)
        for (int i = 0; i < inputs; ++i) in[k][i] = C(Number::widen(words[i].template get<typename Number::Bits>(k)));
    });
#pragma unroll
    for (int k = 0; k < elements; ++k) function(in[k], out[k]);
    with_number<C, Function::wide>(task.type, [&](auto number) {
      using Number = decltype(number);
#pragma unroll
      for (int k = 0; k < elements; ++k)
        for (int i = 0; i < outputs; ++i) results[i].set(k, Number::narrow(out[k][i]));
    });
    with_bits<C, Function::wide>(task.type, [&](auto bits) {
#pragma unroll
      for (int i = 0; i < outputs; ++i)
        write(results[i], static_cast<decltype(bits)*>(task.output[i]) + place.offsets[inputs + i], place.count);
    });
  }
};

template <class Function, int elements>
__global__ void __launch_bounds__(kThreads)
    apply(const __grid_constant__ Function function, const __grid_constant__ Task task) {
  constexpr int steps = kSteps<elements, Function::inputs>;
  const int64_t first = int64_t(blockIdx.x) * (kThreads * steps) + threadIdx.x;
  Part<Function, elements> parts[steps];
#pragma unroll
  for (int step = 0; step < steps; ++step)
    if (first + step * kThreads < task.layout.parts) parts[step].read(task, first + step * kThreads);
#pragma unroll 1
  for (int step = 0; step < steps && first + step * kThreads < task.layout.parts; ++step) {
    parts[0].compute(task, function);
#pragma unroll
    for (int next = 1; next < steps; ++next) parts[next - 1] = parts[next];  // registers have no index
  }
}

// A kernel with the numbers that the host needs to start it.
struct Start {
  int elements, steps;
  cudaError_t (*start)(const cudaLaunchConfig_t&, const Task&, const double* parameters);
};

template <class Function, int elements>
cudaError_t start(const cudaLaunchConfig_t& configuration, const Task& task, const double* parameters) {
  const Function function(parameters);  // its constants are made here once, not by every thread
  cudaLaunchKernelEx(&configuration, &apply<Function, elements>, function, task);
  return cudaGetLastError();
}

// The kernels of one formula and direction that compute in float32, or in float64.
struct Starts {
  Start vectors, elements;
};

template <class Function>
constexpr Starts starts() {
  constexpr int most = kElements<Function>;
  return {{most, kSteps<most, Function::inputs>, &start<Function, most>},
          {1, kSteps<1, Function::inputs>, &start<Function, 1>}};
}

struct Directions {
  Starts forward[2], backward[2];  // of numbers up to float32, and of float64
};

template <template <class> class Formula, int operands>
constexpr Directions directions() {
  using C = std::conditional_t<Formula<float>::wide, double, float>;
  return {{starts<Forward<Formula<C>, C, operands>>(), starts<Forward<Formula<double>, double, operands>>()},
          {starts<Backward<Formula<C>, C, operands>>(), starts<Backward<Formula<double>, double, operands>>()}};
}

#define TORCHACT_OF_ONE(key, Formula, parameters) directions<formulas::Formula, 1>(),
#define TORCHACT_OF_TWO(key, Formula, parameters) directions<formulas::Formula, 2>(),
constexpr Directions kElementwise[] = {TORCHACT_ELEMENTWISE(TORCHACT_OF_ONE)};
constexpr Directions kPair[] = {TORCHACT_PAIRS(TORCHACT_OF_TWO)};
#undef TORCHACT_OF_ONE
#undef TORCHACT_OF_TWO

cudaError_t start(const Starts& starts, const Operands& o, const Geometry& geometry, Type type, const double* parameters,
                  void* stream) {
  const Start& kernel = has_vectors(geometry, o, size_of(type)) ? starts.vectors : starts.elements;
  Task task{Layout(geometry, o.inputs + o.outputs, kernel.elements), type};
  std::copy_n(o.input, o.inputs, task.input);
  std::copy_n(o.output, o.outputs, task.output);
  const int64_t blocks = block_count(task.layout.parts, kThreads * kernel.steps);
  if (blocks > kMostBlocks) return cudaErrorInvalidConfiguration;
  return kernel.start(configuration(blocks, kThreads, stream), task, parameters);
}

}  // namespace

const char* launch(const Kernel& kernel, Type type, const Operands& operands, const double* parameters, void* stream) {
  const Directions& directions = kernel.of_two ? kPair[kernel.formula] : kElementwise[kernel.formula];
  const Starts& starts = (kernel.backward ? directions.backward : directions.forward)[type == Type::float64];
  const Geometry geometry = coalesced(operands.geometry, operands.inputs + operands.outputs);
  return message(each_slice(operands, geometry, size_of(type), [&](const Operands& slice, const Geometry& g) {
    return start(starts, slice, g, type, parameters, stream);
  }));
}

}  // namespace torchact::cuda
