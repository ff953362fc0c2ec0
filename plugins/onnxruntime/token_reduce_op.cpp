#include "kernels/cpu/token_ops.h"
#include "onnxruntime/custom_op.h"
#include "onnxruntime/shape_inference.h"

namespace tmdeploy::ort {
namespace {

class TokenReduce {
 public:
  static constexpr const char* kName = "TokenReduce";
  static constexpr bool kInfers = true;

  OrtStatusPtr init(const OrtKernelInfo* info) {
    std::size_t mode = 0;
    TMDEPLOY_RETURN_IF_ERROR(
        choice(info, kName, "mode", {"wmean", "sum", "anchor", "mean", "max", "mlerp", "mlerp_anchor"}, 0, mode));
    mode_ = static_cast<ReduceMode>(mode);
    return api().KernelInfoGetAllocator(info, OrtMemTypeDefault, &allocator_);
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
    const ReduceParams params{x.dims[0], x.dims[1], index.dims[1], x.dims[2], mode_};
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
    const cpu::ParallelFor parallel = parallel_of(context);
    Scratch scratch(allocator_);
    TMDEPLOY_RETURN_IF_ERROR(scratch.reserve(cpu::reduce_scratch(params, parallel)));
    const char* wrong =
        cpu::token_reduce(params, x.data, dtype_of(x.type), static_cast<const std::int32_t*>(map.data),
                          static_cast<const std::int32_t*>(index.data), static_cast<const float*>(weight.data), y, wsum,
                          scratch.get(), parallel);
    return wrong == nullptr ? nullptr : failure(ORT_INVALID_ARGUMENT, std::string("TokenReduce: ") + wrong);
  }

  static OrtStatusPtr infer(OrtShapeInferContext* context) {
    TMDEPLOY_RETURN_IF_ERROR(
        infer_output(context, 0, {{0, 0}, {2, 1}, {0, 2}}, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED));
    return infer_output(context, 1, {{0, 0}, {2, 1}}, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
  }

  ~TokenReduce() {
    if (allocator_ != nullptr) api().ReleaseAllocator(allocator_);
  }

 private:
  ReduceMode mode_ = ReduceMode::kWmean;
  OrtAllocator* allocator_ = nullptr;
};

}  // namespace

void add_token_reduce(OrtCustomOpDomain* domain, OrtStatusPtr& status) {
  for (const ONNXTensorElementDataType type : kFloatTypes) {
    if (status != nullptr) return;
    auto* const op = new CustomOp<TokenReduce>({{type},
                                                {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
                                                {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
                                                {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, true}},
                                               {{type}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}});
    status = api().CustomOpDomain_Add(domain, op);
  }
}

}  // namespace tmdeploy::ort
