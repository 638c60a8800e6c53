// Which formulas there are: X(operator, formula, parameters as the operator's schema names them).
//
// An operator is called as the activation is in torchact/catalogue/; its formula stands in formulas.h.
#pragma once

// Functions of one tensor. The backward pass of sigmoid, tanh and relu takes their output, of all others the input.
#define TORCHACT_ELEMENTWISE(X)                                    \
  X(sigmoid, Sigmoid, "")                                          \
  X(tanh, Tanh, "")                                                \
  X(logsigmoid, LogSigmoid, "")                                    \
  X(softsign, Softsign, "")                                        \
  X(hardtanh, Hardtanh, ", float min_val, float max_val")          \
  X(hardsigmoid, Hardsigmoid, "")                                  \
  X(relu, ReLU, "")                                                \
  X(relu6, ReLU6, "")                                              \
  X(leaky_relu, LeakyReLU, ", float negative_slope")               \
  X(threshold, Threshold, ", float threshold, float value")        \
  X(squared_relu, SquaredReLU, "")                                 \
  X(elu, ELU, ", float alpha")                                     \
  X(selu, SELU, "")                                                \
  X(celu, CELU, ", float alpha")                                   \
  X(softplus, Softplus, ", float beta, float threshold")           \
  X(silu, SiLU, "")                                                \
  X(swish, Swish, ", float beta")                                  \
  X(quick_gelu, QuickGELU, "")                                     \
  X(gelu, GELU, "")                                                \
  X(gelu_tanh, GELUTanh, "")                                       \
  X(mish, Mish, "")                                                \
  X(hardswish, Hardswish, "")                                      \
  X(tanhshrink, Tanhshrink, "")                                    \
  X(softshrink, Softshrink, ", float lambd")                       \
  X(hardshrink, Hardshrink, ", float lambd")                       \
  X(gaussian, Gaussian, "")                                        \
  X(sine, Sine, ", float omega")                                   \
  X(snake, Snake, ", float alpha")                                 \
  X(binary_step, BinaryStep, "")                                   \
  X(binary_step_straight_through, BinaryStepStraightThrough, "")   \
  X(binary_step_sigmoid, BinaryStepSigmoid, "")                    \
  X(binary_step_atan, BinaryStepAtan, "")                          \
  X(binary_step_fast_sigmoid, BinaryStepFastSigmoid, "")           \
  X(binary_step_triangular, BinaryStepTriangular, "")

// Functions of two tensors: of input and learnable parameter.
#define TORCHACT_LEARNABLE(X)                \
  X(prelu, PReLU, "")                        \
  X(learnable_swish, LearnableSwish, "")     \
  X(learnable_snake, LearnableSnake, "")

// Functions of two tensors: of what is gated and what gates it. They can also be the halves of one tensor.
#define TORCHACT_GATED(X)                                               \
  X(glu, GLU, "")                                                       \
  X(reglu, ReGLU, "")                                                   \
  X(geglu, GEGLU, "")                                                   \
  X(geglu_tanh, GEGLUTanh, "")                                          \
  X(swiglu, SwiGLU, ", float alpha, float limit, float offset")         \
  X(bilinear, Bilinear, "")

#define TORCHACT_PAIRS(X) TORCHACT_LEARNABLE(X) TORCHACT_GATED(X)

// Functions that normalise over a dimension. Their backward pass takes the output.
#define TORCHACT_NORMALISED(X) X(softmax) X(softmin) X(log_softmax)

namespace torchact {

#define TORCHACT_NAME(name, Formula, parameters) name,
enum class Elementwise { TORCHACT_ELEMENTWISE(TORCHACT_NAME) count };
enum class Pair { TORCHACT_PAIRS(TORCHACT_NAME) count };
#undef TORCHACT_NAME
#define TORCHACT_NAME(name) name,
enum class Normalised { TORCHACT_NORMALISED(TORCHACT_NAME) count };
#undef TORCHACT_NAME

constexpr int kMostParameters = 3;

// One of the kernels that these lists ask for.
struct Kernel {
  bool of_two;   // whether `formula` is a Pair, else it is an Elementwise
  int formula;
  bool backward;
};

}  // namespace torchact
