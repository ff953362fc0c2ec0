#include "onnxruntime/custom_op.h"
#include "onnxruntime/devices.h"
#include "onnxruntime/shape_inference.h"

namespace tmdeploy::ort {
namespace {

template <class Device>
class TokenMatch {
 public:
  static constexpr const char* kName = "TokenMatch";
  static constexpr const char* kProvider = Device::kProvider;
  static constexpr bool kInfers = true;

  OrtStatusPtr init(const OrtKernelInfo* info) {
    TMDEPLOY_RETURN_IF_ERROR(read_attributes(info, kName, attributes_));
    return device_.init(info);
  }

  OrtStatusPtr compute(OrtKernelContext* context) const {
    Tensor metric;
    Tensor slots;
    TMDEPLOY_RETURN_IF_ERROR(input(context, 0, 3, "metric", metric));
    TMDEPLOY_RETURN_IF_ERROR(input(context, 1, 1, "slots", slots));
    const MatchParams params{attributes_, metric.dims[0], metric.dims[1], metric.dims[2], slots.dims[0]};
    if (const char* wrong = problem(params)) {
      return failure(ORT_INVALID_ARGUMENT, std::string("TokenMatch: ") + wrong + ": metric " + describe(metric) + ", " +
                                               std::to_string(params.slots) + " slots, num_prefix " +
                                               std::to_string(params.num_prefix));
    }
    cpu::Plan plan{};
    TMDEPLOY_RETURN_IF_ERROR(output(context, 0, {params.batch, params.tokens}, plan.map));
    TMDEPLOY_RETURN_IF_ERROR(output(context, 1, {params.batch, params.slots}, plan.index));
    TMDEPLOY_RETURN_IF_ERROR(output(context, 2, {params.batch, params.tokens}, plan.sim));
    return device_.match(context, params, metric, plan);
  }

  static OrtStatusPtr infer(OrtShapeInferContext* context) {
    TMDEPLOY_RETURN_IF_ERROR(infer_output(context, 0, {{0, 0}, {0, 1}}, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32));
    TMDEPLOY_RETURN_IF_ERROR(infer_output(context, 1, {{0, 0}, {1, 0}}, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32));
    return infer_output(context, 2, {{0, 0}, {0, 1}}, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
  }

 private:
  MatchAttributes attributes_;
  Device device_;
};

template <class Device>
void add(OrtCustomOpDomain* domain, OrtStatusPtr& status) {
  for (const ONNXTensorElementDataType type : kFloatTypes) {
    if (status != nullptr) return;
    auto* const op = new CustomOp<TokenMatch<Device>>({{type}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, false, true}},
                                                      {{ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
                                                       {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
                                                       {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}});
    status = api().CustomOpDomain_Add(domain, op);
  }
}

}  // namespace

void add_token_match(OrtCustomOpDomain* domain, OrtStatusPtr& status) {
  for_each_device([&](auto device) { add<typename decltype(device)::Type>(domain, status); });
}

}  // namespace tmdeploy::ort
