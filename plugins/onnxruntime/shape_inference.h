// Output shapes while the model is loaded, as far as they are known: dimensions are taken over from inputs.
#pragma once

#include "onnxruntime/runtime.h"

namespace tmdeploy::ort {

struct Dim {
  std::size_t input;
  std::size_t axis;
};

// Sets output `index`; `type` UNDEFINED takes the type of input 0. Does nothing where an input's rank is unknown.
OrtStatusPtr infer_output(OrtShapeInferContext* context, std::size_t index, std::initializer_list<Dim> dims,
                          ONNXTensorElementDataType type);

}  // namespace tmdeploy::ort
