#include "onnxruntime/custom_op.h"
#include "onnxruntime/devices.h"

namespace tmdeploy::ort {
namespace {

template <class Device>
class TokenSelect {
 public:
  static constexpr const char* kName = "TokenSelect";
  static constexpr const char* kProvider = Device::kProvider;
  static constexpr bool kInfers = false;  // before ONNX Runtime 1.24 it could not: infers_with_absent_inputs

  OrtStatusPtr init(const OrtKernelInfo* info) {
    TMDEPLOY_RETURN_IF_ERROR(read_attributes(info, kName, attributes_));
    return device_.init(info);
  }

  OrtStatusPtr compute(OrtKernelContext* context) const {
    Tensor score;
    Tensor slots;
    Tensor metric;
    Tensor kept;
    TMDEPLOY_RETURN_IF_ERROR(input(context, 0, 2, "score", score));
    TMDEPLOY_RETURN_IF_ERROR(input(context, 1, 1, "slots", slots));
    TMDEPLOY_RETURN_IF_ERROR(optional_input(context, 2, 3, "metric", metric));
    TMDEPLOY_RETURN_IF_ERROR(optional_input(context, 3, 1, "kept", kept));
    const SelectParams params{attributes_,   score.dims[0], score.dims[1], metric ? metric.dims[2] : 0,
                              slots.dims[0], kept ? kept.dims[0] : slots.dims[0]};
    const bool fuse = params.leftover == Leftover::kFuse;
    const char* wrong = problem(params);
    if (fuse != static_cast<bool>(kept)) wrong = "input kept belongs to leftover = fuse, and only to it";
    if (metric && (metric.dims[0] != params.batch || metric.dims[1] != params.tokens)) {
      wrong = "metric and score differ in images or tokens";
    }
    if (wrong != nullptr) {
      return failure(ORT_INVALID_ARGUMENT, std::string("TokenSelect: ") + wrong + ": score " + describe(score) + ", " +
                                               std::to_string(params.slots) + " slots, " + std::to_string(params.kept) +
                                               " kept, num_prefix " + std::to_string(params.num_prefix));
    }
    cpu::Plan plan{};
    std::int32_t* count = nullptr;
    TMDEPLOY_RETURN_IF_ERROR(output(context, 0, {params.batch, params.tokens}, plan.map));
    TMDEPLOY_RETURN_IF_ERROR(output(context, 1, {params.batch, params.slots}, plan.index));
    TMDEPLOY_RETURN_IF_ERROR(output(context, 2, {params.batch, params.tokens}, plan.sim));
    TMDEPLOY_RETURN_IF_ERROR(output(context, 3, {params.batch}, count));
    return device_.select(context, params, score, metric, plan, count);
  }

 private:
  SelectAttributes attributes_;
  Device device_;
};

template <class Device>
void add(OrtCustomOpDomain* domain, OrtStatusPtr& status) {
  for (const ONNXTensorElementDataType score : kFloatTypes) {
    for (const ONNXTensorElementDataType metric : kFloatTypes) {
      if (status != nullptr) return;
      auto* const op = new CustomOp<TokenSelect<Device>>({{score},
                                                          {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, false, true},
                                                          {metric, true},
                                                          {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, true, true}},
                                                         {{ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
                                                          {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
                                                          {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
                                                          {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32}});
      status = api().CustomOpDomain_Add(domain, op);
    }
  }
}

}  // namespace

void add_token_select(OrtCustomOpDomain* domain, OrtStatusPtr& status) {
  for_each_device([&](auto device) { add<typename decltype(device)::Type>(domain, status); });
}

}  // namespace tmdeploy::ort
