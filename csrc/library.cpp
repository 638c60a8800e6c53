// The operators torch.ops.torchact.*: their schemas, and what they do for each device.
#include <string>
#include <tuple>

#include "accelerate.h"
#include "run.h"
#include "sums.h"

namespace torchact {
namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;
using Stack = StableIValue*;
using Run = void (*)(const Kernel&, const Operands&, ScalarType, const double*);
using Normalise = void (*)(Normalised, const Operands&, ScalarType, int64_t, int64_t, int64_t);

// The numbers that an operator takes after its tensors.
struct Parameters {
  double values[kMostParameters];

  Parameters(Stack stack, uint64_t begin, uint64_t end) {
    for (uint64_t i = begin; i < end; ++i) values[i - begin] = to<double>(stack[i]);
  }
};

// (input, …) -> output
template <Run run, Elementwise formula>
void forward(Stack stack, uint64_t arguments, uint64_t) {
  const Tensor input = to<Tensor>(stack[0]);
  const Parameters parameters(stack, 1, arguments);
  Operands o = operands({&input});
  const Tensor output = add_result(o, input);
  run({false, int(formula), false}, o, input.scalar_type(), parameters.values);
  stack[0] = from(output);
}

// (grad_output, saved, …) -> grad_input
template <Run run, Elementwise formula>
void backward(Stack stack, uint64_t arguments, uint64_t) {
  const Tensor grad_output = to<Tensor>(stack[0]), saved = to<Tensor>(stack[1]);
  const Parameters parameters(stack, 2, arguments);
  Operands o = operands({&grad_output, &saved});
  const Tensor grad_input = add_result(o, saved, 1);
  run({false, int(formula), true}, o, saved.scalar_type(), parameters.values);
  stack[0] = from(grad_input);
}

// (first, second, …) -> output
template <Run run, Pair formula>
void pair_forward(Stack stack, uint64_t arguments, uint64_t) {
  const Tensor first = to<Tensor>(stack[0]), second = to<Tensor>(stack[1]);
  const Parameters parameters(stack, 2, arguments);
  Operands o = operands({&first, &second});
  const Tensor output = add_result(o, first);
  run({true, int(formula), false}, o, first.scalar_type(), parameters.values);
  stack[0] = from(output);
}

// (grad_output, first, second, …) -> (grad_first, grad_second), before they are summed over what was broadcast
template <Run run, Pair formula>
void pair_backward(Stack stack, uint64_t arguments, uint64_t) {
  const Tensor grad_output = to<Tensor>(stack[0]), first = to<Tensor>(stack[1]), second = to<Tensor>(stack[2]);
  const Parameters parameters(stack, 3, arguments);
  Operands o = operands({&grad_output, &first, &second});
  const Tensor grad_first = add_result(o, first, 1);
  const Tensor grad_second = add_result(o, first, 1);
  run({true, int(formula), true}, o, first.scalar_type(), parameters.values);
  stack[0] = from(grad_first);
  stack[1] = from(grad_second);
}

// The halves of a tensor along a dimension, as a gated unit takes them.
struct Packed {
  int64_t dimension, half;
  bool gate_first;

  Packed(const Tensor& tensor, int64_t wanted, bool gate_first) : gate_first(gate_first) {
    dimension = wanted < 0 ? wanted + tensor.dim() : wanted;
    STD_TORCH_CHECK(0 <= dimension && dimension < tensor.dim(), "dim: expected a dimension of the input, which has ",
                    tensor.dim(), ", got ", wanted);
    STD_TORCH_CHECK(tensor.size(dimension) % 2 == 0, "input: expected an even size in dimension ", dimension, ", got ",
                    tensor.size(dimension));
    half = tensor.size(dimension) / 2;
  }

  // Returns (what is gated, what gates it) in memory that starts at `data` and has this stride along the dimension.
  template <class Pointer>
  std::pair<Pointer, Pointer> halves(Pointer data, int64_t stride, size_t element_size) const {
    using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const char, char>;
    Pointer second = static_cast<Byte*>(data) + half * stride * int64_t(element_size);
    return gate_first ? std::pair(second, data) : std::pair(data, second);
  }
};

// (input, dim, gate_first, …) -> output
template <Run run, Pair formula>
void packed_forward(Stack stack, uint64_t arguments, uint64_t) {
  const Tensor input = to<Tensor>(stack[0]);
  const Packed packed(input, to<int64_t>(stack[1]), to<bool>(stack[2]));
  const Parameters parameters(stack, 3, arguments);
  Operands o;
  o.device = input.get_device_index();
  o.geometry = broadcast({&input, &input});
  o.geometry.sizes[packed.dimension] = packed.half;
  o.inputs = 2;
  std::tie(o.input[0], o.input[1]) =
      packed.halves(input.const_data_ptr(), input.stride(packed.dimension), input.element_size());
  const Tensor output = add_result(o, input);
  run({true, int(formula), false}, o, input.scalar_type(), parameters.values);
  stack[0] = from(output);
}

// (grad_output, input, dim, gate_first, …) -> grad_input
template <Run run, Pair formula>
void packed_backward(Stack stack, uint64_t arguments, uint64_t) {
  const Tensor grad_output = to<Tensor>(stack[0]), input = to<Tensor>(stack[1]);
  const Packed packed(input, to<int64_t>(stack[2]), to<bool>(stack[3]));
  const Parameters parameters(stack, 4, arguments);
  check_same_type("grad_output", grad_output, input);
  Geometry whole = broadcast({&input});
  lay_out(whole, 1, 1);
  const Tensor grad_input = empty(whole, 1, input);

  Operands o;
  o.device = input.get_device_index();
  o.geometry = broadcast({&input, &input, &input, &input, &input});
  o.geometry.sizes[packed.dimension] = packed.half;
  STD_TORCH_CHECK(grad_output.dim() == input.dim() && std::equal(o.geometry.sizes, o.geometry.sizes + input.dim(),
                                                                 grad_output.sizes().begin()),
                  "grad_output: expected the shape of half the input");
  std::copy_n(grad_output.strides().begin(), input.dim(), o.geometry.strides[0]);
  o.inputs = 3;
  o.outputs = 2;
  o.input[0] = grad_output.const_data_ptr();
  std::tie(o.input[1], o.input[2]) =
      packed.halves(input.const_data_ptr(), input.stride(packed.dimension), input.element_size());
  for (int result = 3; result < 5; ++result)
    std::copy_n(whole.strides[1], input.dim(), o.geometry.strides[result]);
  std::tie(o.output[0], o.output[1]) =
      packed.halves(grad_input.mutable_data_ptr(), whole.strides[1][packed.dimension], input.element_size());
  run({true, int(formula), true}, o, input.scalar_type(), parameters.values);
  stack[0] = from(grad_input);
}

const void* entries(const Tensor& table, ScalarType type) {
  STD_TORCH_CHECK(table.scalar_type() == type && table.numel() == 65536 && table.is_contiguous() && table.is_cpu(),
                  "table: expected 65536 entries of ", torch::headeronly::toString(type),
                  " that lie side by side on the CPU");
  return table.const_data_ptr();
}

Tensor look_up(const Tensor& input, const Tensor& table) {
  const void* values = entries(table, input.scalar_type());
  Operands o = operands({&input});
  Tensor output = add_result(o, input);
  cpu::look_up(o, input.scalar_type(), values);
  return output;
}

Tensor look_up_backward(const Tensor& grad_output, const Tensor& input, const Tensor& table) {
  const void* derivatives = entries(table, ScalarType::Float);
  Operands o = operands({&grad_output, &input});
  Tensor grad_input = add_result(o, input, 1);
  cpu::look_up(o, input.scalar_type(), derivatives);
  return grad_input;
}

// Runs over a dimension of contiguous operands.
void normalise(Normalise softmax, Normalised kind, const Operands& o, const Tensor& like, int64_t dim) {
  const int64_t dimensions = like.dim(), wanted = dim < 0 ? dim + std::max<int64_t>(dimensions, 1) : dim;
  STD_TORCH_CHECK(0 <= wanted && wanted < std::max<int64_t>(dimensions, 1),
                  "dim: expected a dimension of the input, which has ", dimensions, ", got ", dim);
  int64_t outer = 1, size = 1, inner = 1;
  for (int64_t d = 0; d < dimensions; ++d) (d < wanted ? outer : d == wanted ? size : inner) *= like.size(d);
  softmax(kind, o, like.scalar_type(), outer, size, inner);
}

void check_contiguous(const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.is_contiguous(), name, ": expected a contiguous tensor");
}

template <Normalise softmax, Normalised kind>
Tensor normalised(const Tensor& input, int64_t dim) {
  check_contiguous("input", input);
  Operands o = operands({&input});
  Tensor output = add_result(o, input);
  normalise(softmax, kind, o, input, dim);
  return output;
}

template <Normalise softmax, Normalised kind>
Tensor normalised_backward(const Tensor& grad_output, const Tensor& saved, int64_t dim) {
  check_contiguous("grad_output", grad_output);
  check_contiguous("saved", saved);
  Operands o = operands({&grad_output, &saved});
  STD_TORCH_CHECK(element_count(o.geometry) == grad_output.numel() && grad_output.numel() == saved.numel(),
                  "grad_output: expected the shape of the output");
  Tensor grad_input = add_result(o, saved, 1);
  normalise(softmax, kind, o, saved, dim);
  return grad_input;
}

cpu::Intervals intervals_of(const Tensor& intervals) {
  STD_TORCH_CHECK(intervals.scalar_type() == ScalarType::Double && intervals.dim() == 2 && intervals.size(0) == 2 &&
                      intervals.is_contiguous() && intervals.is_cpu(),
                  "intervals: expected float64 numbers of shape (2, n): their lower ends, and their upper ends");
  const int64_t n = intervals.size(1);
  const double* low = intervals.const_data_ptr<double>();
  return {int(n), low, low + n};
}

cpu::Source source(const Tensor& tensor) {
  cpu::Source source{tensor.const_data_ptr(), tensor.numel(), type_of(tensor.scalar_type())};
  if (!tensor.is_contiguous()) source.strided = std::make_unique<Operands>(operands({&tensor}));
  return source;
}

cpu::Statistics reduced(const Tensor& input, const cpu::Intervals& intervals, cpu::Counted counted) {
  const cpu::Source only = source(input);
  return std::move(cpu::statistics({&only, 1}, intervals, counted)[0]);
}

void check_sums(const Tensor& sums, const Tensor& input, int64_t count, int64_t otherwise) {
  STD_TORCH_CHECK(sums.scalar_type() == ScalarType::Double && is_beside(sums, input) && sums.is_contiguous() &&
                      (sums.numel() == count || sums.numel() == otherwise),
                  "sums: expected ", count, otherwise == count ? "" : " or " + std::to_string(otherwise),
                  " float64 numbers on the input's device, got ", sums.numel());
}

void check_sums_of_each(const Tensor& sums, const std::vector<Tensor>& inputs, int64_t count) {
  const int64_t expected = count * int64_t(inputs.size());
  for (const Tensor& input : inputs) check_sums(sums, input, expected, expected);
}

// (count, sum, squares, zeros, non-finite, subnormal, within the intervals, exponents…, largest magnitude)
Tensor statistics(const Tensor& input, const Tensor& intervals, bool exponents) {
  const cpu::Counted counted = exponents ? cpu::Counted::exponents : cpu::Counted::moments;
  const cpu::Statistics s = reduced(input, intervals_of(intervals), counted);
  Geometry shape;
  shape.dimensions = 1;
  shape.sizes[0] = kMoments + 1 + int64_t(s.exponents.size());
  shape.strides[0][0] = 1;
  Tensor result = empty(shape, 0, intervals);
  double* out = result.mutable_data_ptr<double>();
  for (double value : sums_of(input.numel(), s.moments)) *out++ = value;
  *out++ = double(s.moments.within);
  for (int64_t count : s.exponents) *out++ = double(count);
  *out = largest_of(s.moments);
  return result;
}

// Merges the statistics of a tensor into `sums`, which have bins of exponents or have none.
void add_statistics(Tensor sums, const Tensor& input) {
  check_sums(sums, input, kMoments, kBinned);
  const cpu::Counted counted = sums.numel() == kBinned ? cpu::Counted::bins : cpu::Counted::moments;
  double* out = sums.mutable_data_ptr<double>();
  merge(out, input.numel(), reduced(input, {}, counted));
}

std::vector<cpu::Statistics> reduced(const std::vector<Tensor>& inputs, const cpu::Intervals& intervals,
                                     cpu::Counted counted) {
  std::vector<cpu::Source> sources;
  for (const Tensor& input : inputs) sources.push_back(source(input));
  return cpu::statistics(sources, intervals, counted);
}

// The same of several tensors; the sums lie one behind the other, and have no exponents.
void add_statistics_of_each(Tensor sums, std::vector<Tensor> inputs) {
  check_sums_of_each(sums, inputs, kMoments);
  double* out = sums.mutable_data_ptr<double>();
  std::size_t i = 0;
  for (const cpu::Statistics& s : reduced(inputs, {}, cpu::Counted::moments)) merge(out, inputs[i++].numel(), s);
}

// Adds to `sums` how many entries each tensor has, and how many of them lie in the intervals.
void add_within_of_each(Tensor sums, std::vector<Tensor> inputs, const Tensor& intervals) {
  check_sums_of_each(sums, inputs, 2);
  double* out = sums.mutable_data_ptr<double>();
  std::size_t i = 0;
  for (const cpu::Statistics& s : reduced(inputs, intervals_of(intervals), cpu::Counted::within)) count(out, inputs[i++].numel(), s);
}

// A tensor of which a dimension has units: `outer` times `units` times `inner` entries.
struct Units {
  int64_t outer = 1, units, inner = 1;
};

Units units_of(const Tensor& largest, const Tensor& input, int64_t dim) {
  check_contiguous("input", input);
  STD_TORCH_CHECK(0 <= dim && dim < input.dim(), "dim: expected a dimension of the input, which has ", input.dim(),
                  ", got ", dim);
  STD_TORCH_CHECK(largest.scalar_type() == ScalarType::Float && is_beside(largest, input) && largest.is_contiguous() &&
                      largest.numel() == input.size(dim),
                  "largest: expected as many float32 numbers on the input's device as the dimension has entries");
  Units u;
  u.units = input.size(dim);
  for (int64_t d = 0; d < dim; ++d) u.outer *= input.size(d);
  for (int64_t d = dim + 1; d < input.dim(); ++d) u.inner *= input.size(d);
  return u;
}

// Raises the largest magnitudes of the units along a dimension to those of their entries.
void add_largest_of_units(Tensor largest, const Tensor& input, int64_t dim) {
  const Units u = units_of(largest, input, dim);
  cpu::largest_of_units(input.const_data_ptr(), type_of(input.scalar_type()), u.outer, u.units, u.inner,
                        largest.mutable_data_ptr<float>());
}

#ifdef TORCHACT_CUDA
namespace on_cuda {

void add_statistics(Tensor sums, const Tensor& input) {
  check_sums(sums, input, kMoments, kBinned);
  const bool binned = sums.numel() == kBinned;
  cuda::add_statistics(operands({&input}), input.scalar_type(), binned, sums.mutable_data_ptr<double>());
}

void add_statistics_of_each(Tensor sums, std::vector<Tensor> inputs) {
  check_sums_of_each(sums, inputs, kMoments);
  double* out = sums.mutable_data_ptr<double>();
  for (const Tensor& input : inputs) {
    cuda::add_statistics(operands({&input}), input.scalar_type(), false, out);
    out += kMoments;
  }
}

void add_within_of_each(Tensor sums, std::vector<Tensor> inputs, const Tensor& intervals) {
  check_sums_of_each(sums, inputs, 2);
  double* out = sums.mutable_data_ptr<double>();
  for (const Tensor& input : inputs) {
    cuda::add_within(operands({&input}), input.scalar_type(), intervals_of(intervals), out);
    out += 2;
  }
}

void add_largest_of_units(Tensor largest, const Tensor& input, int64_t dim) {
  const Units u = units_of(largest, input, dim);
  cuda::add_largest_of_units(input, u.outer, u.units, u.inner, largest.mutable_data_ptr<float>());
}

}  // namespace on_cuda
#endif

std::string instruction_set() { return cpu::instruction_set(); }
bool is_intel_with_avx512() { return cpu::is_intel_with_avx512(); }

using Library = torch::stable::detail::StableLibrary;

template <Run run, Normalise softmax>
void implement(Library& m) {
#define TORCHACT_IMPLEMENT_ELEMENTWISE(key, Formula, parameters) \
  m.impl(#key, &forward<run, Elementwise::key>);                 \
  m.impl(#key "_backward", &backward<run, Elementwise::key>);
#define TORCHACT_IMPLEMENT_PAIR(key, Formula, parameters) \
  m.impl(#key, &pair_forward<run, Pair::key>);            \
  m.impl(#key "_backward", &pair_backward<run, Pair::key>);
#define TORCHACT_IMPLEMENT_PACKED(key, Formula, parameters)   \
  m.impl(#key "_packed", &packed_forward<run, Pair::key>);    \
  m.impl(#key "_packed_backward", &packed_backward<run, Pair::key>);
#define TORCHACT_IMPLEMENT_NORMALISED(key)                          \
  m.impl(#key, TORCH_BOX((&normalised<softmax, Normalised::key>))); \
  m.impl(#key "_backward", TORCH_BOX((&normalised_backward<softmax, Normalised::key>)));
  TORCHACT_ELEMENTWISE(TORCHACT_IMPLEMENT_ELEMENTWISE)
  TORCHACT_PAIRS(TORCHACT_IMPLEMENT_PAIR)
  TORCHACT_GATED(TORCHACT_IMPLEMENT_PACKED)
  TORCHACT_NORMALISED(TORCHACT_IMPLEMENT_NORMALISED)
}

}  // namespace
}  // namespace torchact

STABLE_TORCH_LIBRARY(torchact, m) {
#define TORCHACT_DEFINE_ELEMENTWISE(key, Formula, parameters)    \
  m.def(#key "(Tensor input" parameters ") -> Tensor");          \
  m.def(#key "_backward(Tensor grad_output, Tensor saved" parameters ") -> Tensor");
#define TORCHACT_DEFINE_PAIR(key, Formula, parameters)                    \
  m.def(#key "(Tensor first, Tensor second" parameters ") -> Tensor");    \
  m.def(#key "_backward(Tensor grad_output, Tensor first, Tensor second" parameters ") -> (Tensor, Tensor)");
#define TORCHACT_DEFINE_PACKED(key, Formula, parameters)                                   \
  m.def(#key "_packed(Tensor input, int dim, bool gate_first" parameters ") -> Tensor");   \
  m.def(#key "_packed_backward(Tensor grad_output, Tensor input, int dim, bool gate_first" parameters ") -> Tensor");
#define TORCHACT_DEFINE_NORMALISED(key)            \
  m.def(#key "(Tensor input, int dim) -> Tensor"); \
  m.def(#key "_backward(Tensor grad_output, Tensor saved, int dim) -> Tensor");
  TORCHACT_ELEMENTWISE(TORCHACT_DEFINE_ELEMENTWISE)
  TORCHACT_PAIRS(TORCHACT_DEFINE_PAIR)
  TORCHACT_GATED(TORCHACT_DEFINE_PACKED)
  TORCHACT_NORMALISED(TORCHACT_DEFINE_NORMALISED)
  m.def("look_up(Tensor input, Tensor table) -> Tensor");
  m.def("look_up_backward(Tensor grad_output, Tensor input, Tensor table) -> Tensor");
  m.def("statistics(Tensor input, Tensor intervals, bool exponents) -> Tensor");
  m.def("add_statistics(Tensor(a!) sums, Tensor input) -> ()");
  m.def("add_statistics_of_each(Tensor(a!) sums, Tensor[] inputs) -> ()");
  m.def("add_within_of_each(Tensor(a!) sums, Tensor[] inputs, Tensor intervals) -> ()");
  m.def("add_largest_of_units(Tensor(a!) largest, Tensor input, int dim) -> ()");
  m.def("instruction_set() -> str");
  m.def("is_intel_with_avx512() -> bool");
  torchact::define_acceleration(m);
}

STABLE_TORCH_LIBRARY_IMPL(torchact, CPU, m) {
  torchact::implement<torchact::cpu::run, torchact::cpu::softmax>(m);
  m.impl("look_up", TORCH_BOX(&torchact::look_up));
  m.impl("look_up_backward", TORCH_BOX(&torchact::look_up_backward));
  m.impl("statistics", TORCH_BOX(&torchact::statistics));
  m.impl("add_statistics", TORCH_BOX(&torchact::add_statistics));
  m.impl("add_statistics_of_each", TORCH_BOX(&torchact::add_statistics_of_each));
  m.impl("add_within_of_each", TORCH_BOX(&torchact::add_within_of_each));
  m.impl("add_largest_of_units", TORCH_BOX(&torchact::add_largest_of_units));
}

#ifdef TORCHACT_CUDA
STABLE_TORCH_LIBRARY_IMPL(torchact, CUDA, m) {
  torchact::implement<torchact::cuda::run, torchact::cuda::softmax>(m);
  m.impl("add_statistics", TORCH_BOX(&torchact::on_cuda::add_statistics));
  m.impl("add_statistics_of_each", TORCH_BOX(&torchact::on_cuda::add_statistics_of_each));
  m.impl("add_within_of_each", TORCH_BOX(&torchact::on_cuda::add_within_of_each));
  m.impl("add_largest_of_units", TORCH_BOX(&torchact::on_cuda::add_largest_of_units));
}
#endif

STABLE_TORCH_LIBRARY_IMPL(torchact, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&torchact::instruction_set));
  m.impl("is_intel_with_avx512", TORCH_BOX(&torchact::is_intel_with_avx512));
  torchact::implement_acceleration(m);
}
