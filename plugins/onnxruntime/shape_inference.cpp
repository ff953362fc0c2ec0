#include "onnxruntime/shape_inference.h"

namespace tmdeploy::ort {
namespace {

// For what we make; an input's shape, which the context hands out, stays the context's.
struct Release {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  ~Release() {
    if (info != nullptr) api().ReleaseTensorTypeAndShapeInfo(info);
  }
};

// False where the dimension cannot be told. `symbol` belongs to the model, not to us.
bool read_dim(OrtShapeInferContext* context, const Dim& dim, std::int64_t& size, std::string& symbol) {
  OrtTensorTypeAndShapeInfo* input = nullptr;
  std::size_t rank = 0;
  std::int64_t sizes[Tensor::kMostDims] = {};
  const char* symbols[Tensor::kMostDims] = {};
  OrtStatusPtr status = api().ShapeInferContext_GetInputTypeShape(context, dim.input, &input);
  if (status == nullptr) status = api().GetDimensionsCount(input, &rank);
  const bool fits = rank > dim.axis && rank <= Tensor::kMostDims;
  if (status == nullptr && fits) status = api().GetDimensions(input, sizes, rank);
  if (status == nullptr && fits) status = api().GetSymbolicDimensions(input, symbols, rank);
  if (status != nullptr) api().ReleaseStatus(status);
  if (status != nullptr || !fits) return false;
  size = sizes[dim.axis];
  symbol = symbols[dim.axis] != nullptr ? symbols[dim.axis] : "";
  return size >= 0 || !symbol.empty();
}

}  // namespace

OrtStatusPtr infer_output(OrtShapeInferContext* context, std::size_t index, std::initializer_list<Dim> dims,
                          ONNXTensorElementDataType type) {
  std::int64_t sizes[Tensor::kMostDims] = {};
  std::string names[Tensor::kMostDims];
  const char* symbols[Tensor::kMostDims] = {};
  std::size_t rank = 0;
  for (const Dim& dim : dims) {
    if (!read_dim(context, dim, sizes[rank], names[rank])) return nullptr;
    symbols[rank] = names[rank].c_str();
    ++rank;
  }
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED) {
    OrtTensorTypeAndShapeInfo* first = nullptr;
    TMDEPLOY_RETURN_IF_ERROR(api().ShapeInferContext_GetInputTypeShape(context, 0, &first));
    TMDEPLOY_RETURN_IF_ERROR(api().GetTensorElementType(first, &type));
  }
  Release made;
  TMDEPLOY_RETURN_IF_ERROR(api().CreateTensorTypeAndShapeInfo(&made.info));
  TMDEPLOY_RETURN_IF_ERROR(api().SetTensorElementType(made.info, type));
  TMDEPLOY_RETURN_IF_ERROR(api().SetDimensions(made.info, sizes, rank));
  TMDEPLOY_RETURN_IF_ERROR(api().SetSymbolicDimensions(made.info, symbols, rank));
  return api().ShapeInferContext_SetOutputTypeShape(context, index, made.info);
}

}  // namespace tmdeploy::ort
