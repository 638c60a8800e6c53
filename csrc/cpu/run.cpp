// Runs a loop over tensors of any strides, on the threads that torch gives.
#include "../run.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace torchact::cpu {
namespace {

constexpr int64_t kCopied = 512;  // entries of short rows that are worked on together: copies stay in the nearest cache
constexpr int64_t kGrain = 32768;  // entries that are worth a thread, as torch's own operators count
constexpr int64_t kPart = 1 << 15;  // entries that are reduced one after the other, however many threads there are
constexpr int64_t kFewParts = 8, kMostParts = 64;  // of rows, with as many results: fewer may not do for all threads
constexpr int kBlock = 512;        // entries copied to where they lie side by side, at a time

const Kernels& chosen_kernels() {
#ifdef TORCHACT_X86
  const char* wanted = std::getenv("TORCHACT_INSTRUCTIONS");
  const std::string_view most = wanted ? wanted : kAVX512.name;
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && most != kBaseline.name;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && most == kAVX512.name;
  if (avx2 && avx512) return kAVX512;
  if (avx2) return kAVX2;
#endif
  return kBaseline;
}

const Kernels& kernels() {
  static const Kernels& chosen = chosen_kernels();
  return chosen;
}

template <class T>
void gather(const char* from, int64_t stride, int count, void* to) {
  for (int i = 0; i < count; ++i) static_cast<T*>(to)[i] = reinterpret_cast<const T*>(from)[i * stride];
}

template <class T>
void scatter(const void* from, int count, char* to, int64_t stride) {
  for (int i = 0; i < count; ++i) reinterpret_cast<T*>(to)[i * stride] = static_cast<const T*>(from)[i];
}

void gather(int size, const char* from, int64_t stride, int count, void* to) {
  if (size == 8) return gather<uint64_t>(from, stride, count, to);
  if (size == 4) return gather<uint32_t>(from, stride, count, to);
  gather<uint16_t>(from, stride, count, to);
}

void scatter(int size, const void* from, int count, char* to, int64_t stride) {
  if (size == 8) return scatter<uint64_t>(from, count, to, stride);
  if (size == 4) return scatter<uint32_t>(from, count, to, stride);
  scatter<uint16_t>(from, count, to, stride);
}

// A loop over operands of any strides. What does not lie side by side, or has to be widened, goes through a buffer.
class Pass {
 public:
  Pass(const Operands& operands, int element_size, Loop loop, const void* context, const Half* half)
      : operands_(operands),
        geometry_(coalesced(operands.geometry, operands.inputs + operands.outputs)),
        size_(element_size),
        loop_(loop),
        context_(context),
        half_(half) {
    direct_ = half == nullptr;
    for (int i = 0; i < operands.inputs + operands.outputs; ++i) direct_ &= geometry_.strides[i][0] == 1;
  }

  // Returns the same with another context.
  Pass with(const void* context) const {
    Pass other = *this;
    other.context_ = context;
    return other;
  }

  // Runs over the entries from `begin` to `end`, counted in the order of the geometry.
  void operator()(int64_t begin, int64_t end) const {
    int64_t index[kMostDimensions], rest = begin;
    char* data[kMostOperands];
    for (int i = 0; i < operands_.inputs; ++i) data[i] = static_cast<char*>(const_cast<void*>(operands_.input[i]));
    for (int i = 0; i < operands_.outputs; ++i) data[operands_.inputs + i] = static_cast<char*>(operands_.output[i]);
    for (int d = 0; d < geometry_.dimensions; ++d) {
      index[d] = rest % geometry_.sizes[d];
      rest /= geometry_.sizes[d];
      move(data, d, index[d]);
    }
    while (begin < end) {
      const int64_t count = std::min(geometry_.sizes[0] - index[0], end - begin);
      row(data, count);
      begin += count;
      move(data, 0, count);
      index[0] += count;
      for (int d = 0; d + 1 < geometry_.dimensions && index[d] == geometry_.sizes[d]; ++d) {
        move(data, d, -index[d]);
        index[d] = 0;
        move(data, d + 1, 1);
        ++index[d + 1];
      }
    }
  }

 private:
  void move(char** data, int dimension, int64_t steps) const {
    for (int i = 0; i < operands_.inputs + operands_.outputs; ++i)
      data[i] += steps * geometry_.strides[i][dimension] * size_;
  }

  void row(char* const* data, int64_t count) const {
    if (direct_) {
      const void* inputs[3];
      void* outputs[2];
      std::copy_n(data, operands_.inputs, inputs);
      std::copy_n(data + operands_.inputs, operands_.outputs, outputs);
      return loop_(inputs, outputs, count, context_);
    }
    for (int64_t start = 0; start < count; start += kBlock) block(data, start, int(std::min<int64_t>(kBlock, count - start)));
  }

  void block(char* const* data, int64_t start, int count) const {
    alignas(64) char wide[kMostOperands][kBlock * 8];
    alignas(64) char narrow[kBlock * 2];
    const void* inputs[3];
    void* outputs[2];
    for (int i = 0; i < operands_.inputs; ++i) {
      const int64_t stride = geometry_.strides[i][0];
      const char* from = data[i] + start * stride * size_;
      inputs[i] = from;
      if (stride != 1) {
        void* to = half_ ? narrow : wide[i];
        gather(size_, from, stride, count, to);
        inputs[i] = to;
      }
      if (half_) {
        void* to = wide[i];
        half_->widen(&inputs[i], &to, count, nullptr);
        inputs[i] = to;
      }
    }
    for (int i = 0; i < operands_.outputs; ++i) {
      const int operand = operands_.inputs + i;
      const bool direct = !half_ && geometry_.strides[operand][0] == 1;
      outputs[i] = direct ? data[operand] + start * size_ : wide[operand];
    }
    loop_(inputs, outputs, count, context_);
    for (int i = 0; i < operands_.outputs; ++i) {
      const int operand = operands_.inputs + i;
      const int64_t stride = geometry_.strides[operand][0];
      char* to = data[operand] + start * stride * size_;
      const void* from = outputs[i];
      if (half_) {
        void* narrowed = stride == 1 ? to : narrow;
        half_->narrow(&from, &narrowed, count, nullptr);
        from = narrowed;
      }
      if (stride != 1) scatter(size_, from, count, to, stride);
    }
  }

  const Operands& operands_;
  const Geometry geometry_;
  const int size_;
  const Loop loop_;
  const void* context_;
  const Half* const half_;
  bool direct_;
};

const Half* half_of(Type type) {
  if (type == Type::bfloat16) return &kernels().half[0];
  if (type == Type::float16) return &kernels().half[1];
  return nullptr;
}

void add(Moments& sum, const Moments& part) {
  sum.total += part.total;
  sum.squares += part.squares;
  sum.zeros += part.zeros;
  sum.subnormal += part.subnormal;
  sum.non_finite += part.non_finite;
  sum.within += part.within;
  sum.largest = std::max(sum.largest, part.largest);
}

Operands side_by_side(const Source& source) {
  Operands o;
  o.geometry.dimensions = 1;
  o.geometry.sizes[0] = source.count;
  o.geometry.strides[0][0] = 1;
  o.input[o.inputs++] = source.data;
  return o;
}

void run(const Pass& pass, int64_t count, int64_t grain = kGrain) {
  if (count == 0) return;
  if (count <= grain) return pass(0, count);
  torch::stable::parallel_for(0, count, grain, pass);
}

}  // namespace

void run(const Kernel& kernel, const Operands& operands, ScalarType scalar_type, const double* parameters) {
  const Type type = type_of(scalar_type);
  const Loops& loops = kernel.of_two ? kernels().pair[kernel.formula] : kernels().elementwise[kernel.formula];
  const Loop Direction::*direction = kernel.backward ? &Direction::backward : &Direction::forward;
  const Loop own = loops[std::size_t(type)].*direction;
  const bool direct = own != nullptr;
  const Loop loop = direct ? own : loops[0].*direction;
  run(Pass(operands, size_of(type), loop, parameters, direct ? nullptr : half_of(type)),
      element_count(operands.geometry), kernel.of_two ? kGrain / 2 : kGrain);  // of two, each costs more
}

void look_up(const Operands& operands, ScalarType scalar_type, const void* table) {
  const Half* half = half_of(type_of(scalar_type));
  STD_TORCH_CHECK(half != nullptr, "input: expected bfloat16 or float16, got ",
                  torch::headeronly::toString(scalar_type));
  const Loop loop = operands.inputs == 1 ? half->table.forward : half->table.backward;
  run(Pass(operands, 2, loop, table, nullptr), element_count(operands.geometry));
}

void log_sigmoid(const Operands& operands, ScalarType scalar_type) {
  const Type type = type_of(scalar_type);
  const Loop loop = kernels().log_sigmoid[type == Type::float64 ? 1 : 0];
  run(Pass(operands, size_of(type), loop, nullptr, half_of(type)), element_count(operands.geometry));
}

// Where the numbers of a tile lie: in lines that are `apart` in the tensor. Copies in float32 have them side by side.
struct Lines {
  int64_t start, count, length, apart;
};

// A loop over tiles of tensors, of half types over copies in float32 unless it takes them as they are.
class TileLoop {
 public:
  TileLoop(const Operands& operands, Type type, const Loops& loops) : operands_(operands), size_(size_of(type)) {
    const bool direct = loops[std::size_t(type)].forward != nullptr;
    half_ = direct ? nullptr : half_of(type);
    const Direction& direction = loops[direct ? std::size_t(type) : 0];
    loop_ = operands.inputs == 1 ? direction.forward : direction.backward;
  }

  bool copies() const { return half_ != nullptr; }

  // Room for what is computed of tiles with so many entries, for one thread.
  std::vector<float> room(int64_t entries) const {
    return std::vector<float>(copies() ? (operands_.inputs + operands_.outputs) * entries : size_ == 2 ? entries : 0);
  }

  void operator()(Tile tile, int64_t rows, const Lines& lines, std::vector<float>& room) const {
    tile.room = room.data();
    const void* inputs[2];
    void* outputs[1] = {static_cast<char*>(operands_.output[0]) + lines.start * size_};
    for (int k = 0; k < operands_.inputs; ++k)
      inputs[k] = static_cast<const char*>(operands_.input[k]) + lines.start * size_;
    if (!copies()) return loop_(inputs, outputs, rows, &tile);
    float* copy = room.data();
    for (int k = 0; k < operands_.inputs; ++k) {
      const void* lies = std::exchange(inputs[k], copy);
      for (int64_t line = 0; line < lines.count; ++line, copy += lines.length) {
        const char* from = static_cast<const char*>(lies) + line * lines.apart * size_;
        if (line + kAhead < lines.count) prefetch(from + kAhead * lines.apart * size_, lines.length * size_);
        convert(half_->widen, from, copy, lines.length);
      }
    }
    void* result = copy;
    loop_(inputs, &result, rows, &tile);
    for (int64_t line = 0; line < lines.count; ++line, copy += lines.length) {
      char* to = static_cast<char*>(outputs[0]) + line * lines.apart * size_;
      if (line + kAhead < lines.count) prefetch(to + kAhead * lines.apart * size_, lines.length * size_);
      convert(half_->narrow, copy, to, lines.length);
    }
  }

 private:
  static void convert(Loop loop, const void* from, void* to, int64_t length) { loop(&from, &to, length, nullptr); }

  const Operands& operands_;
  const int64_t size_;
  const Half* half_;
  Loop loop_;
};

void softmax(Normalised kind, const Operands& operands, ScalarType scalar_type, int64_t outer, int64_t size,
             int64_t inner) {
  if (outer * size * inner == 0) return;
  const Type type = type_of(scalar_type);
  const TileLoop loop(operands, type, kernels().softmax[int(kind)]);
  // Wide strips are read faster, but of few columns more are made, for several threads.
  const int64_t most = outer * inner < 16 * Tile::kWidth ? Tile::kWidth / 4 : Tile::kWidth;
  const int64_t strips = (inner + most - 1) / most, count = outer * strips, entries = size * std::min(inner, most);
  const int64_t at_once = std::max<int64_t>(1, kCopied / size);
  auto rows = [&](int64_t begin, int64_t end) {
    std::vector<float> room = loop.room(size * at_once);
    for (int64_t i = begin; i < end; i += at_once) {
      const int64_t some = std::min(at_once, end - i);
      loop(Tile{size, 1, 1}, some, Lines{i * size, 1, some * size, 0}, room);
    }
  };
  auto tiles = [&](int64_t begin, int64_t end) {
    std::vector<float> room = loop.room(entries);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i % strips * most, width = std::min(most, inner - column);
      const int64_t start = i / strips * size * inner + column;
      const Lines lines = strips == 1 ? Lines{start, 1, size * inner, 0} : Lines{start, size, width, inner};
      loop(Tile{size, loop.copies() ? width : inner, int(width)}, 1, lines, room);
    }
  };
  auto share = [&](const auto& work) {
    if (count * entries <= kGrain) return work(0, count);
    torch::stable::parallel_for(0, count, std::max<int64_t>(1, kGrain / entries), work);
  };
  inner == 1 ? share(rows) : share(tiles);
}

std::vector<Statistics> statistics(std::span<const Source> sources, const Intervals& intervals, Counted counted) {
  struct Part {
    std::size_t source;
    int64_t begin, end, offset;  // in the source; and of its begin in all sources together
    Moments moments;
    std::vector<int64_t> exponents;
  };
  std::vector<Part> parts;
  int64_t entries = 0;
  for (std::size_t source = 0; source < sources.size(); ++source) {
    const int64_t count = sources[source].count;
    for (int64_t i = 0; i < count; i += kPart) parts.push_back({source, i, std::min(count, i + kPart), entries + i, {}, {}});
    entries += count;
  }
  const auto kinds = [counted](Type type) -> std::size_t {
    if (counted == Counted::exponents) return type == Type::float64 ? kExponents : 256;
    return counted == Counted::bins ? kBins : 0;
  };
  auto reduce = [&](Part& part) {
    const Source& source = sources[part.source];
    const Type type = source.type;
    part.exponents.resize(kinds(type));
    const StatisticsContext context{&part.moments,
                                    counted == Counted::exponents ? part.exponents.data() : nullptr,
                                    counted == Counted::bins ? part.exponents.data() : nullptr,
                                    intervals.count,
                                    intervals.low,
                                    intervals.high,
                                    smallest_normal(type)};
    const auto& loops = counted == Counted::within ? kernels().within : kernels().statistics;
    const Loop loop = loops[type == Type::float64 ? 1 : 0];
    const Half* half = half_of(type);
    const auto pass = [&](const Operands& o) { Pass(o, size_of(type), loop, &context, half)(part.begin, part.end); };
    if (source.strided) return pass(*source.strided);
    if (half) return pass(side_by_side(source));
    const void* from = static_cast<const char*>(source.data) + part.begin * size_of(type);
    loop(&from, nullptr, part.end - part.begin, &context);
  };
  // As threads have computed a tensor, so they reduce it: each has its share in its cache.
  auto share = [&](int64_t begin, int64_t end) {
    const auto is_before = [](const Part& part, int64_t offset) { return part.offset < offset; };
    const auto first = std::lower_bound(parts.begin(), parts.end(), begin, is_before);
    std::for_each(first, std::lower_bound(first, parts.end(), end, is_before), reduce);
  };
  if (entries <= kPart)
    share(0, entries);
  else
    torch::stable::parallel_for(0, entries, kPart, share);
  std::vector<Statistics> results(sources.size());
  for (std::size_t i = 0; i < sources.size(); ++i) results[i].exponents.resize(kinds(sources[i].type));
  for (const Part& part : parts) {
    Statistics& result = results[part.source];
    add(result.moments, part.moments);
    for (std::size_t i = 0; i < part.exponents.size(); ++i) result.exponents[i] += part.exponents[i];
  }
  return results;
}

void largest_of_units(const void* data, Type type, int64_t outer, int64_t units, int64_t inner, float* largest) {
  const Loop loop = kernels().largest_of_units[std::size_t(type)];
  auto reduce = [&](int64_t row, int64_t rows, int64_t begin, int64_t end, void* output) {
    const UnitsContext context{rows, units, inner, begin, end};
    const void* from = static_cast<const char*>(data) + row * units * inner * size_of(type);
    loop(&from, &output, 0, &context);
  };
  const int64_t entries = outer * units * inner;
  if (entries <= kPart) return reduce(0, outer, 0, units, largest);
  const int64_t rows = std::max<int64_t>(kPart / (units * inner), (outer + kMostParts - 1) / kMostParts);
  const int64_t parts = (outer + rows - 1) / rows;
  if (parts < kFewParts) {
    const auto share = [&](int64_t begin, int64_t end) { reduce(0, outer, begin, end, largest); };
    return torch::stable::parallel_for(0, units, std::max<int64_t>(1, kPart * units / entries), share);
  }
  // Shared as above: each thread has its rows in its cache.
  std::vector<float> found(parts * units, 0.0f);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      reduce(part * rows, std::min(rows, outer - part * rows), 0, units, found.data() + part * units);
  });
  const void* each = found.data();
  void* output = largest;
  const UnitsContext context{parts, units, 1, 0, units};
  kernels().largest_of_units[std::size_t(Type::float32)](&each, &output, 0, &context);
}

const char* instruction_set() { return kernels().name; }

bool is_intel_with_avx512() {
#ifdef TORCHACT_X86
  __builtin_cpu_init();
  return __builtin_cpu_is("intel") && __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

}  // namespace torchact::cpu
