#include "onnxruntime/custom_op.h"
#include "onnxruntime/devices.h"
#include "onnxruntime/shape_inference.h"

namespace tmdeploy::ort {
namespace {

template <class Device>
class TokenReduce {
 public:
  static constexpr const char* kName = "TokenReduce";
  static constexpr const char* kProvider = Device::kProvider;
  static constexpr bool kInfers = true;

  OrtStatusPtr init(const OrtKernelInfo* info) {
    TMDEPLOY_RETURN_IF_ERROR(read_attributes(info, kName, attributes_));
    return device_.init(info);
  }

  OrtStatusPtr compute(OrtKernelContext* context) const {
    Tensor x;
    Tensor map;
    Tensor index;
    Tensor weight;
    TMDEPLOY_RETURN_IF_ERROR(input(context, 0, 3, "x", x));
    TMDEPLOY_RETURN_IF_ERROR(input(context, 1, 2, "map", map));
    TMDEPLOY_RETURN_IF_ERROR(input(context, 2, 2, "index", index));
    TMDEPLOY_RETURN_IF_ERROR(optional_input(context, 3, 2, "weight", weight));
    const ReduceParams params{attributes_, x.dims[0], x.dims[1], index.dims[1], x.dims[2]};
    const auto per_token = [&](const Tensor& t) { return t.dims[0] == params.batch && t.dims[1] == params.tokens; };
    if (!per_token(map) || index.dims[0] != params.batch || (weight && !per_token(weight))) {
      return failure(ORT_INVALID_ARGUMENT,
                     "TokenReduce: shapes do not fit: x " + describe(x) + ", map " + describe(map) + ", index " +
                         describe(index) + (weight ? ", weight " + describe(weight) : std::string()));
    }
    void* y = nullptr;
    float* wsum = nullptr;
    TMDEPLOY_RETURN_IF_ERROR(output(context, 0, {params.batch, params.slots, params.features}, y));
    TMDEPLOY_RETURN_IF_ERROR(output(context, 1, {params.batch, params.slots}, wsum));
    return device_.reduce(context, params, x, static_cast<const std::int32_t*>(map.data),
                          static_cast<const std::int32_t*>(index.data), static_cast<const float*>(weight.data), y,
                          wsum);
  }

  static OrtStatusPtr infer(OrtShapeInferContext* context) {
    TMDEPLOY_RETURN_IF_ERROR(
        infer_output(context, 0, {{0, 0}, {2, 1}, {0, 2}}, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED));
    return infer_output(context, 1, {{0, 0}, {2, 1}}, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
  }

 private:
  ReduceAttributes attributes_;
  Device device_;
};

template <class Device>
void add(OrtCustomOpDomain* domain, OrtStatusPtr& status) {
  for (const ONNXTensorElementDataType type : kFloatTypes) {
    if (status != nullptr) return;
    auto* const op = new CustomOp<TokenReduce<Device>>({{type},
                                                        {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
                                                        {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
                                                        {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true}},
                                                       {{type}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}});
    status = api().CustomOpDomain_Add(domain, op);
  }
}

}  // namespace

void add_token_reduce(OrtCustomOpDomain* domain, OrtStatusPtr& status) {
  for_each_device([&](auto device) { add<typename decltype(device)::Type>(domain, status); });
}

}  // namespace tmdeploy::ort
