// Softmax and its relatives over a dimension of tensors that lie side by side: a team of threads for each line, which is
// a row, whose entries lie side by side, or a column.
#include <algorithm>
#include <bit>

#include "access.h"
#include "functions.h"
#include "launch.h"

namespace torchact::cuda {
namespace {

constexpr int kThreads = 128;      // of a block whose lines are short
constexpr int kMostThreads = 512;  // of a block, and of the team of a row
constexpr int kColumns = 32;       // that a block reads at once, so that memory answers them together
constexpr int kKept = 4;           // parts of a row that a thread keeps in registers

// What kernels are given by value: lines of `size` entries, `inner` of them side by side.
struct Task {
  Type type;
  const void* input[2];
  void* output;
  int64_t lines, size;
  Divisor inner;
  int team;
};

// The threads that share a line. Their values lie in shared memory, those of neighbours `apart`.
struct Team {
  int size, apart, lane;
  int64_t line;

  // The combination of what all of them have. The whole block has to call it.
  template <class Combine>
  __device__ double fold(double* shared, double value, Combine combine) const {
    const int thread = int(threadIdx.x);
    __syncthreads();  // until what was there before has been read
    shared[thread] = value;
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      if (lane < step) shared[thread] = combine(shared[thread], shared[thread + step * apart]);
    }
    __syncthreads();
    return shared[thread - lane * apart];
  }
};

// Entries of a line that a thread computes at a time: of `at`, `at + stride`, … those from the first to the last.
struct Part {
  int64_t at, stride;
  int first, last;
};

// Rows are read in parts that begin where vectors can be read: the first and the last may be incomplete.
template <class C>
struct Rows {
  static constexpr int kWidth = sizeof(C) == 4 ? 8 : 4;

  static __device__ Team team(const Task& task) {
    const int thread = int(threadIdx.x), lane = thread & (task.team - 1);
    return {task.team, 1, lane, int64_t(blockIdx.x) * (blockDim.x / task.team) + thread / task.team};
  }

  int64_t begin, end;

  __device__ Rows(const Task& task, int64_t line) : begin(line * task.size), end(begin + task.size) {}

  __device__ int64_t parts() const { return (end - 1) / kWidth - begin / kWidth + 1; }

  __device__ Part part(int64_t index) const {
    const int64_t at = (begin / kWidth + index) * kWidth;
    return {at, 1, int(at < begin ? begin - at : 0), int(end - at < kWidth ? end - at : kWidth)};
  }
};

// Columns are read in parts of a few entries, by neighbours in neighbouring columns.
template <class C>
struct Columns {
  static constexpr int kWidth = 4;

  static __device__ Team team(const Task& task) {
    const int apart = int(blockDim.x) / task.team, thread = int(threadIdx.x);
    return {task.team, apart, thread / apart, int64_t(blockIdx.x) * apart + thread % apart};
  }

  int64_t begin, size, stride;

  __device__ Columns(const Task& task, int64_t line) : size(task.size), stride(task.inner.value) {
    const int64_t outer = task.inner.divide(line);
    begin = line + outer * (task.size - 1) * stride;
  }

  __device__ int64_t parts() const { return size / kWidth + (size % kWidth != 0); }

  __device__ Part part(int64_t index) const {
    const int64_t left = size - index * kWidth;
    return {begin + index * kWidth * stride, stride, 0, left < kWidth ? int(left) : kWidth};
  }
};

// What reads and writes the parts of one thread. Of lines that are kept all parts are loaded before any is computed, since
// memory is slow to answer and answers many requests at once.
template <class C, template <class> class Lines>
struct Parts {
  static constexpr int kWidth = Lines<C>::kWidth;
  using Loaded = Words<kWidth, sizeof(C)>;

  const Task& task;
  Team team;
  Lines<C> line;
  int64_t count;  // of the whole line, or 0 if there is no such line

  __device__ explicit Parts(const Task& task)
      : task(task), team(Lines<C>::team(task)), line(task, team.line), count(team.line < task.lines ? line.parts() : 0) {}

  // Loads an operand's part, as memory has it.
  __device__ void load(int operand, const Part& part, Loaded& words) const {
    with_bits<C, false>(task.type, [&](auto bits) {
      using Bits = decltype(bits);
      const Bits* from = static_cast<const Bits*>(task.input[operand]) + part.at;
      if (part.stride == 1 && part.last - part.first == kWidth) return read(words, from, kWidth, false);
#pragma unroll
      for (int k = 0; k < kWidth; ++k)
        words.set(k, part.first <= k && k < part.last ? from[k * part.stride] : Bits(0));
    });
  }

  // Widens what was loaded; what does not belong to the line becomes `otherwise`.
  __device__ void widen(const Loaded& words, const Part& part, C otherwise, C* values) const {
    with_number<C, false>(task.type, [&](auto number) {
      using Number = decltype(number);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const C value = Number::widen(words.template get<typename Number::Bits>(k));
        values[k] = part.first <= k && k < part.last ? value : otherwise;
      }
    });
  }

  __device__ void write(const C* values, const Part& part) const {
    with_number<C, false>(task.type, [&](auto number) {
      using Number = decltype(number);
      using Bits = typename Number::Bits;
      Bits* to = static_cast<Bits*>(task.output) + part.at;
      if (part.stride == 1 && part.last - part.first == kWidth) {
        Loaded words;
#pragma unroll
        for (int k = 0; k < kWidth; ++k) words.set(k, Number::narrow(values[k]));
        cuda::write(words, to, kWidth);
      } else {
#pragma unroll
        for (int k = 0; k < kWidth; ++k)
          if (part.first <= k && k < part.last) to[k * part.stride] = Number::narrow(values[k]);
      }
    });
  }

  // Calls `one` with each part, and its index among those of the thread: of at most `kKept`, a constant.
  template <bool kept, class One>
  __device__ void for_each(One one) const {
    if constexpr (kept) {
#pragma unroll
      for (int k = 0; k < kKept; ++k)
        if (team.lane + k * team.size < count) one(line.part(team.lane + k * team.size), k);
    } else {
      for (int64_t i = team.lane; i < count; i += team.size) one(line.part(i), 0);
    }
  }
};

template <class C, Normalised kind, template <class> class Lines, bool kept>
struct Forward {
  using Formula = formulas::Softmax<C, kind>;
  static constexpr bool logarithmic = kind == Normalised::log_softmax;
  static constexpr int kWidth = Lines<C>::kWidth;

  const Parts<C, Lines> parts;
  typename Parts<C, Lines>::Loaded x[kept ? kKept : 1];
  C values[kept ? kKept : 1][kWidth];

  __device__ explicit Forward(const Task& task) : parts(task) {
    if constexpr (kept) parts.template for_each<true>([&](const Part& part, int at) { parts.load(0, part, x[at]); });
  }

  __device__ void read(const Part& part, int at) {
    if constexpr (!kept) parts.load(0, part, x[at]);
    parts.widen(x[at], part, Formula::signed_input(C(-math::kInfinity)), values[at]);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[at][i] = Formula::signed_input(values[at][i]);
  }

  __device__ void operator()(double* shared) {
    double most = -math::kInfinity;
    auto larger = [](auto a, auto b) { return a > b ? a : b; };  // NaN is left to the sum, which it makes NaN
    parts.template for_each<kept>([&](const Part& part, int at) {
      read(part, at);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) most = larger(double(values[at][i]), most);
    });
    const C shift = C(parts.team.fold(shared, most, larger));
    double total = 0;
    parts.template for_each<kept>([&](const Part& part, int at) {
      if constexpr (!kept) read(part, at);
      C some = 0;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        values[at][i] -= shift;
        const C power = math::exp_nonpositive(values[at][i]);
        if constexpr (!logarithmic) values[at][i] = power;
        some += power;
      }
      total += some;
    });
    total = parts.team.fold(shared, total, [](double a, double b) { return a + b; });
    const C sum = C(total), log_sum = math::log_from_one(sum) + C(total - sum) / sum;
    parts.template for_each<kept>([&](const Part& part, int at) {
      if constexpr (!kept) read(part, at);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        C& y = values[at][i];
        if constexpr (!kept) y -= shift;
        if constexpr (!kept && !logarithmic) y = math::exp_nonpositive(y);
        y = logarithmic ? y - log_sum : y / sum;
      }
      parts.write(values[at], part);
    });
  }
};

template <class C, Normalised kind, template <class> class Lines, bool kept>
struct Backward {
  using Formula = formulas::Softmax<C, kind>;
  static constexpr int kWidth = Lines<C>::kWidth;

  const Parts<C, Lines> parts;
  typename Parts<C, Lines>::Loaded loaded[2][kept ? kKept : 1];
  C g[kept ? kKept : 1][kWidth], y[kept ? kKept : 1][kWidth];

  __device__ explicit Backward(const Task& task) : parts(task) {
    if constexpr (kept) parts.template for_each<true>([&](const Part& part, int at) { load(part, at); });
  }

  __device__ void load(const Part& part, int at) {
    parts.load(0, part, loaded[0][at]);
    parts.load(1, part, loaded[1][at]);
  }

  __device__ void read(const Part& part, int at) {
    if constexpr (!kept) load(part, at);
    parts.widen(loaded[0][at], part, C(0), g[at]);
    parts.widen(loaded[1][at], part, C(0), y[at]);
  }

  __device__ void operator()(double* shared) {
    double total = 0;
    parts.template for_each<kept>([&](const Part& part, int at) {
      read(part, at);
      C some = 0;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) some += Formula::term(g[at][i], y[at][i]);
      total += some;
    });
    const C sum = C(parts.team.fold(shared, total, [](double a, double b) { return a + b; }));
    parts.template for_each<kept>([&](const Part& part, int at) {
      if constexpr (!kept) read(part, at);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) g[at][i] = Formula::gradient(g[at][i], y[at][i], sum);
      parts.write(g[at], part);
    });
  }
};

template <class Function>
__global__ void __launch_bounds__(kMostThreads) apply(const __grid_constant__ Task task) {
  __shared__ double shared[kMostThreads];
  Function function(task);
  function(shared);
}

struct Launch {
  void (*kernel)(Task);
  int threads, lines;  // of a block
};

template <template <class, Normalised, template <class> class, bool> class Function, class C, Normalised kind>
Launch choose(Task& task, bool vectors) {
  if (task.inner.value == 1 && vectors) {
    const int64_t whole = task.size / Rows<C>::kWidth, parts = task.size % Rows<C>::kWidth == 0 ? whole : whole + 2;
    task.team = int(std::bit_ceil(uint64_t(std::clamp<int64_t>(parts / 2, 1, kMostThreads))));
    const int threads = std::max(task.team, kThreads);
    const bool kept = parts <= int64_t(kKept) * task.team;
    return {kept ? &apply<Function<C, kind, Rows, true>> : &apply<Function<C, kind, Rows, false>>, threads,
            threads / task.team};
  }
  const int64_t parts = (task.size + Columns<C>::kWidth - 1) / Columns<C>::kWidth;
  task.team = int(std::bit_ceil(uint64_t(std::min<int64_t>(parts, kMostThreads / kColumns))));
  const int columns = std::max(kColumns, kThreads / task.team);
  return {&apply<Function<C, kind, Columns, false>>, columns * task.team, columns};
}

template <template <class, Normalised, template <class> class, bool> class Function, class C>
Launch choose(Normalised kind, Task& task, bool vectors) {
  switch (kind) {
    case Normalised::softmin: return choose<Function, C, Normalised::softmin>(task, vectors);
    case Normalised::log_softmax: return choose<Function, C, Normalised::log_softmax>(task, vectors);
    default: return choose<Function, C, Normalised::softmax>(task, vectors);
  }
}

Launch choose(Normalised kind, bool backward, Task& task, bool vectors) {
  if (task.type == Type::float64)
    return backward ? choose<Backward, double>(kind, task, vectors) : choose<Forward, double>(kind, task, vectors);
  return backward ? choose<Backward, float>(kind, task, vectors) : choose<Forward, float>(kind, task, vectors);
}

}  // namespace

const char* softmax(Normalised kind, Type type, const Operands& o, int64_t outer, int64_t size, int64_t inner,
                    void* stream) {
  Task task{type, {}, o.output[0], outer * inner, size, Divisor(inner), 0};
  std::copy_n(o.input, o.inputs, task.input);
  const bool vectors = std::all_of(o.input, o.input + o.inputs, is_aligned) && is_aligned(o.output[0]);
  const Launch launch = choose(kind, o.inputs == 2, task, vectors);
  const int64_t blocks = block_count(task.lines, launch.lines);
  if (blocks > kMostBlocks) return message(cudaErrorInvalidConfiguration);
  const cudaLaunchConfig_t c = configuration(blocks, launch.threads, stream);
  cudaLaunchKernelEx(&c, launch.kernel, task);
  return message(cudaGetLastError());
}

}  // namespace torchact::cuda
