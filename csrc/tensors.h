// torch's tensors as the kernels need them: their type and geometry, and results that lie as torch's own operators lay
// them out.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>

#include "geometry.h"

#ifndef STABLE_TORCH_ERROR_CODE_CHECK  // the headers of torch 2.10 and 2.11 have it by its former name
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif

namespace torchact {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Type type_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return Type::float32;
    case ScalarType::Double: return Type::float64;
    case ScalarType::BFloat16: return Type::bfloat16;
    case ScalarType::Half: return Type::float16;
    default: STD_TORCH_CHECK(false, "input: expected a floating-point tensor, got ", torch::headeronly::toString(type));
  }
}

inline bool is_beside(const Tensor& tensor, const Tensor& other) {
  return tensor.is_cpu() == other.is_cpu() && tensor.get_device_index() == other.get_device_index();
}

inline void check_same_type(const char* name, const Tensor& tensor, const Tensor& other) {
  STD_TORCH_CHECK(tensor.scalar_type() == other.scalar_type(), name, ": expected ",
                  torch::headeronly::toString(other.scalar_type()), " like the other operands, got ",
                  torch::headeronly::toString(tensor.scalar_type()));
  STD_TORCH_CHECK(is_beside(tensor, other), name, ": expected a tensor on the device of the other operands");
}

// Returns the geometry of tensors that are broadcast against each other, and room for the results'.
inline Geometry broadcast(std::initializer_list<const Tensor*> tensors) {
  Geometry g;
  for (const Tensor* tensor : tensors) g.dimensions = std::max(g.dimensions, int(tensor->dim()));
  STD_TORCH_CHECK(g.dimensions <= kMostDimensions, "expected at most ", kMostDimensions, " dimensions, got ",
                  g.dimensions);
  for (int d = 0; d < g.dimensions; ++d) g.sizes[d] = 1;
  for (const Tensor* tensor : tensors) {
    const auto sizes = tensor->sizes();
    const int added = g.dimensions - int(sizes.size());
    for (int d = added; d < g.dimensions; ++d) {
      const int64_t size = sizes[d - added];
      STD_TORCH_CHECK(size == 1 || g.sizes[d] == 1 || size == g.sizes[d],
                      "expected operands whose shapes can be broadcast, got sizes ", g.sizes[d], " and ", size,
                      " in dimension ", d);
      if (size != 1) g.sizes[d] = size;
    }
  }
  int operand = 0;
  for (const Tensor* tensor : tensors) {
    const auto sizes = tensor->sizes(), strides = tensor->strides();
    const int added = g.dimensions - int(sizes.size());
    for (int d = 0; d < g.dimensions; ++d)
      g.strides[operand][d] = d < added || (sizes[d - added] == 1 && g.sizes[d] != 1) ? 0 : strides[d - added];
    ++operand;
  }
  return g;
}

// Returns a new tensor with the sizes and the strides of operand `result`, of the type and on the device of `like`.
inline Tensor empty(const Geometry& g, int result, const Tensor& like) {
  int32_t type, device_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(g.dimensions, g.sizes, g.strides[result], type, device_type,
                                                         like.get_device_index(), &handle));
  return Tensor(handle);
}

inline Operands operands(std::initializer_list<const Tensor*> tensors) {
  Operands o;
  o.geometry = broadcast(tensors);
  o.device = (*tensors.begin())->get_device_index();
  for (const Tensor* tensor : tensors) {
    if (o.inputs > 0) check_same_type("input", *tensor, **tensors.begin());
    o.input[o.inputs++] = tensor->const_data_ptr();
  }
  return o;
}

// Adds a result that lies as the inputs do; where they lie differently, as the `leader` among them.
inline Tensor add_result(Operands& o, const Tensor& like, int leader = 0) {
  const int result = o.inputs + o.outputs;
  auto& strides = o.geometry.strides;
  std::swap(strides[0], strides[leader]);
  lay_out(o.geometry, o.inputs, result);
  std::swap(strides[0], strides[leader]);
  Tensor tensor = empty(o.geometry, result, like);
  o.output[o.outputs++] = tensor.mutable_data_ptr();
  return tensor;
}

}  // namespace torchact
