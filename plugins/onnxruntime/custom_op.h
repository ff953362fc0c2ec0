// The table of functions that ONNX Runtime wants of an op, filled from a kernel class.
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>
#include <vector>

#include "onnxruntime/runtime.h"

namespace tmdeploy::ort {

struct Argument {
  ONNXTensorElementDataType type;
  bool optional = false;
  bool shape_only = false;  // its elements are not read: it stays in host memory
};

// Kernel has `static constexpr const char* kName` and `kProvider` (null: the CPU), `OrtStatusPtr init(const
// OrtKernelInfo*)`, `OrtStatusPtr compute(OrtKernelContext*) const`, and, where `kInfers`, `static OrtStatusPtr
// infer(OrtShapeInferContext*)`.
template <class Kernel>
class CustomOp : public OrtCustomOp {
 public:
  CustomOp(std::vector<Argument> inputs, std::vector<Argument> outputs)
      : OrtCustomOp{}, inputs_(std::move(inputs)), outputs_(std::move(outputs)) {
    version = kApiVersion;
    GetName = [](const OrtCustomOp*) { return Kernel::kName; };
    GetExecutionProviderType = [](const OrtCustomOp*) { return Kernel::kProvider; };
    GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).inputs_.size(); };
    GetInputType = [](const OrtCustomOp* op, std::size_t i) { return self(op).inputs_[i].type; };
    GetInputCharacteristic = [](const OrtCustomOp* op, std::size_t i) { return kind(self(op).inputs_[i]); };
    GetInputMemoryType = [](const OrtCustomOp* op, std::size_t i) {
      return Kernel::kProvider != nullptr && self(op).inputs_[i].shape_only ? OrtMemTypeCPUInput : OrtMemTypeDefault;
    };
    GetOutputTypeCount = [](const OrtCustomOp* op) { return self(op).outputs_.size(); };
    GetOutputType = [](const OrtCustomOp* op, std::size_t i) { return self(op).outputs_[i].type; };
    GetOutputCharacteristic = [](const OrtCustomOp* op, std::size_t i) { return kind(self(op).outputs_[i]); };
    GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
    GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
    GetStartVersion = GetEndVersion = [](const OrtCustomOp*) { return TM_OP_SET_VERSION; };
    const bool may_lack_inputs = std::any_of(inputs_.begin(), inputs_.end(), [](const Argument& a) { return a.optional; });
    if constexpr (Kernel::kInfers) {
      if (!may_lack_inputs || infers_with_absent_inputs()) {
        InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
          return guarded([&] { return Kernel::infer(context); });
        };
      }
    }
    CreateKernelV2 = create;
    KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return guarded([&] { return static_cast<const Kernel*>(kernel)->compute(context); });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  }

 private:
  static const CustomOp& self(const OrtCustomOp* op) { return *static_cast<const CustomOp*>(op); }

  static OrtCustomOpInputOutputCharacteristic kind(const Argument& argument) {
    return argument.optional ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  }

  // Messages are strings, which can run out of memory; nothing may be thrown into ONNX Runtime.
  template <class Function>
  static OrtStatusPtr guarded(const Function& function) noexcept {
    try {
      return function();
    } catch (...) {
      return api().CreateStatus(ORT_FAIL, "tmdeploy: out of memory");
    }
  }

  static OrtStatusPtr create(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info, void** out) {
    *out = nullptr;
    auto* const kernel = new (std::nothrow) Kernel();
    if (kernel == nullptr) return failure(ORT_FAIL, "tmdeploy: out of memory");
    if (OrtStatusPtr status = guarded([&] { return kernel->init(info); })) {
      delete kernel;
      return status;
    }
    *out = kernel;
    return nullptr;
  }

  std::vector<Argument> inputs_;
  std::vector<Argument> outputs_;
};

// One op a type combination; they live as long as the process.
void add_token_match(OrtCustomOpDomain* domain, OrtStatusPtr& status);
void add_token_select(OrtCustomOpDomain* domain, OrtStatusPtr& status);
void add_token_reduce(OrtCustomOpDomain* domain, OrtStatusPtr& status);

constexpr ONNXTensorElementDataType kFloatTypes[] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                                     ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                                                     ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16};

}  // namespace tmdeploy::ort
