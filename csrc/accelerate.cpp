// Gives torch's own operators on the CPU our kernels, and takes them back. What ours do not serve goes on to torch's,
// through the operator's form that writes into a given tensor, which stays torch's.
#include "accelerate.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "run.h"

namespace torchact {
namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;
using Library = torch::stable::detail::StableLibrary;
using Stack = StableIValue*;

// The operators, in the order of their tables. Those from silu on have a table of their derivative as well.
enum Operator { tanh, sigmoid, silu, mish, gelu, gelu_tanh, count };
constexpr Elementwise kFormula[count] = {Elementwise::tanh, Elementwise::sigmoid, Elementwise::silu,
                                         Elementwise::mish, Elementwise::gelu,    Elementwise::gelu_tanh};
constexpr int kHalfTypes = 2;

struct State {
  Tensor values;       // bits as int16, (kHalfTypes · count, 65536): of each operator for bfloat16 and float16
  Tensor derivatives;  // float32, of the operators from silu on
  bool keeps_tanh;     // whether torch's tanh is faster in float32
  Library library{Library::Kind::IMPL, "aten", "CPU", __FILE__, __LINE__};

  State(const Tensor& values, const Tensor& derivatives, bool keeps_tanh)
      : values(values), derivatives(derivatives), keeps_tanh(keeps_tanh) {}
};

std::unique_ptr<State>& state() {
  static std::unique_ptr<State> current;
  return current;
}

bool is_half(const Tensor& x) {
  return x.scalar_type() == ScalarType::BFloat16 || x.scalar_type() == ScalarType::Half;
}

bool is_served(const Tensor& x) {
  return x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double || is_half(x);
}

const void* table(Operator op, bool backward, ScalarType type) {
  const int64_t row = kHalfTypes * (backward ? op - silu : op) + (type == ScalarType::Half);
  if (backward) return state()->derivatives.const_data_ptr<float>() + row * 65536;
  return state()->values.const_data_ptr<int16_t>() + row * 65536;
}

void compute(Operator op, bool backward, const Operands& o, const Tensor& x) {
  const ScalarType type = x.scalar_type();
  if (is_half(x)) return cpu::look_up(o, type, table(op, backward, type));
  cpu::run({false, int(kFormula[op]), backward}, o, type, nullptr);
}

Tensor value(Operator op, const Tensor& x) {
  Operands o = operands({&x});
  Tensor result = add_result(o, x);
  compute(op, false, o, x);
  return result;
}

Tensor derivative(Operator op, const Tensor& grad_output, const Tensor& x) {
  Operands o = operands({&grad_output, &x});
  Tensor result = add_result(o, x, 1);
  compute(op, true, o, x);
  return result;
}

void overwrite(Operator op, const Tensor& x) {
  Operands o = operands({&x});
  std::copy_n(o.geometry.strides[0], o.geometry.dimensions, o.geometry.strides[1]);
  o.output[o.outputs++] = x.mutable_data_ptr();
  compute(op, false, o, x);
}

// Whether no two entries share memory, so that each can be written.
bool can_be_overwritten(const Tensor& x) { return x.is_contiguous(); }

// The message of an error in torch, which the stable ABI hands out from torch 2.13 on.
std::string last_error(const char* name) {
  using Message = const char* (*)();
  static const auto message = reinterpret_cast<Message>(
      dlsym(RTLD_DEFAULT, "torch_exception_get_what_without_backtrace"));
  return message ? message() : std::string(name) + " refused its arguments";
}

void call(const char* name, const char* overload, Stack stack) {
  if (torch_call_dispatcher(name, overload, stack, TORCH_ABI_VERSION) != TORCH_SUCCESS)
    throw std::runtime_error(last_error(name));
}

// Returns a tensor for torch's operator to write into: integers become floating-point numbers, as of any such function.
Tensor room_for(const Tensor& x) {
  const ScalarType type = x.scalar_type();
  const bool integers = type == ScalarType::Bool || type == ScalarType::Byte || type == ScalarType::Char ||
                        type == ScalarType::Short || type == ScalarType::Int || type == ScalarType::Long;
  if (!integers) return torch::stable::empty_like(x);
  StableIValue stack[1] = {from(x)};
  call("aten::sin", "", stack);
  return to<Tensor>(stack[0]);
}

template <const char* name>
Tensor torch_value(const Tensor& x, const Tensor& out) {
  StableIValue stack[2] = {from(x), from(out)};
  call(name, "out", stack);
  return to<Tensor>(stack[0]);
}

constexpr char kTanh[] = "aten::tanh", kSigmoid[] = "aten::sigmoid", kSiLU[] = "aten::silu", kMish[] = "aten::mish";

// Whether ours is to compute it. What goes on to torch's takes a microsecond more, which many numbers make up for.
template <Operator op>
bool is_ours(const Tensor& x) {
  constexpr int64_t many = 16384;
  if (op == tanh && state()->keeps_tanh && x.scalar_type() == ScalarType::Float && x.numel() >= many) return false;
  return is_served(x);
}

template <Operator op, const char* name>
Tensor functional(const Tensor& x) {
  return is_ours<op>(x) ? value(op, x) : torch_value<name>(x, room_for(x));
}

template <Operator op, const char* name>
Tensor inplace(const Tensor& x) {
  if (!is_ours<op>(x) || !can_be_overwritten(x)) return torch_value<name>(x, x);
  overwrite(op, x);
  return x;
}

Tensor silu_backward(const Tensor& grad_output, const Tensor& x) {
  if (is_served(x) && grad_output.scalar_type() == x.scalar_type()) return derivative(silu, grad_output, x);
  StableIValue stack[3] = {from(grad_output), from(x), from(room_for(x))};
  call("aten::silu_backward", "grad_input", stack);
  return to<Tensor>(stack[0]);
}

// torch's own has no form that writes into a tensor: of all dtypes it takes the ones that ours takes.
Tensor mish_backward(const Tensor& grad_output, const Tensor& x) {
  STD_TORCH_CHECK(is_served(x), "\"mish_backward_cpu\" not implemented for '",
                  torch::headeronly::toString(x.scalar_type()), "'");
  return derivative(mish, grad_output, x);
}

std::optional<Operator> form_of_gelu(const std::string& approximate) {
  if (approximate == "none") return gelu;
  if (approximate == "tanh") return gelu_tanh;
  return std::nullopt;  // which torch's refuses
}

Tensor torch_gelu(const Tensor& x, const std::string& approximate, const Tensor& out) {
  StableIValue stack[3] = {from(x), from(approximate), from(out)};
  call("aten::gelu", "out", stack);
  return to<Tensor>(stack[0]);
}

Tensor gelu_functional(const Tensor& x, std::string approximate) {
  const auto form = form_of_gelu(approximate);
  return form && is_served(x) ? value(*form, x) : torch_gelu(x, approximate, torch::stable::empty_like(x));
}

Tensor gelu_inplace(const Tensor& x, std::string approximate) {
  const auto form = form_of_gelu(approximate);
  if (!form || !is_served(x) || !can_be_overwritten(x)) return torch_gelu(x, approximate, x);
  overwrite(*form, x);
  return x;
}

Tensor gelu_backward(const Tensor& grad_output, const Tensor& x, std::string approximate) {
  const auto form = form_of_gelu(approximate);
  if (form && is_served(x) && grad_output.scalar_type() == x.scalar_type()) return derivative(*form, grad_output, x);
  StableIValue stack[4] = {from(grad_output), from(x), from(approximate), from(torch::stable::empty_like(x))};
  call("aten::gelu_backward", "grad_input", stack);
  return to<Tensor>(stack[0]);
}

// torch's backward pass reads exp(-|x|), which the buffer therefore holds: acceleration may end before it.
std::tuple<Tensor, Tensor> log_sigmoid_forward(const Tensor& x) {
  if (is_served(x)) {
    Operands o = operands({&x});
    Tensor output = add_result(o, x), buffer = add_result(o, x);
    cpu::log_sigmoid(o, x.scalar_type());
    return {output, buffer};
  }
  StableIValue stack[3] = {from(x), from(torch::stable::empty_like(x)), from(torch::stable::empty_like(x))};
  call("aten::log_sigmoid_forward", "output", stack);
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
}

void implement(Library& m) {
  m.impl("tanh", TORCH_BOX((&functional<tanh, kTanh>)));
  m.impl("tanh_", TORCH_BOX((&inplace<tanh, kTanh>)));
  m.impl("sigmoid", TORCH_BOX((&functional<sigmoid, kSigmoid>)));
  m.impl("sigmoid_", TORCH_BOX((&inplace<sigmoid, kSigmoid>)));
  m.impl("silu", TORCH_BOX((&functional<silu, kSiLU>)));
  m.impl("silu_", TORCH_BOX((&inplace<silu, kSiLU>)));
  m.impl("silu_backward", TORCH_BOX(&silu_backward));
  m.impl("mish", TORCH_BOX((&functional<mish, kMish>)));
  m.impl("mish_", TORCH_BOX((&inplace<mish, kMish>)));
  m.impl("mish_backward", TORCH_BOX(&mish_backward));
  m.impl("gelu", TORCH_BOX(&gelu_functional));
  m.impl("gelu_", TORCH_BOX(&gelu_inplace));
  m.impl("gelu_backward", TORCH_BOX(&gelu_backward));
  m.impl("log_sigmoid_forward", TORCH_BOX(&log_sigmoid_forward));
}

void check(const Tensor& tables, const char* name, int operators, ScalarType type) {
  STD_TORCH_CHECK(tables.scalar_type() == type && tables.numel() == kHalfTypes * operators * int64_t(65536) &&
                      tables.is_contiguous() && tables.is_cpu(),
                  name, ": expected ", kHalfTypes * operators, " × 65536 entries of ",
                  torch::headeronly::toString(type));
}

void accelerate(const Tensor& values, const Tensor& derivatives, bool keeps_tanh) {
  check(values, "values", count, ScalarType::Short);
  check(derivatives, "derivatives", count - silu, ScalarType::Float);
  state().reset();
  state() = std::make_unique<State>(values, derivatives, keeps_tanh);
  implement(state()->library);
}

void decelerate() { state().reset(); }

}  // namespace

void define_acceleration(Library& m) {
  m.def("accelerate(Tensor values, Tensor derivatives, bool keeps_tanh) -> ()");
  m.def("decelerate() -> ()");
}

void implement_acceleration(Library& m) {
  m.impl("accelerate", TORCH_BOX(&accelerate));
  m.impl("decelerate", TORCH_BOX(&decelerate));
}

}  // namespace torchact
