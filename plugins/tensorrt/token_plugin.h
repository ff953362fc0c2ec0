// What the three plugins share: an IPluginV3 with its core, build and runtime capability in one object, and its creator.
//
// An op says what it is (name, attributes, tensors) and how to run; this header turns that into TensorRT's interfaces. Only
// interfaces of 10.0 are used and no logger is touched (its vtable differs between 10 and 11), so that one library built on
// 10.x headers loads in 10.x and 11.x. Problems go to standard error, one line each.
#pragma once

#include <NvInferRuntime.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "../kernels/common/op_params.h"
#include "fields.h"

namespace tmdeploy::tensorrt {

#define TM_TEXT_OF(number) #number
#define TM_TEXT(number) TM_TEXT_OF(number)
constexpr const char* kNamespace = kDomain;
constexpr const char* kVersion = TM_TEXT(TM_OP_SET_VERSION);
constexpr std::int32_t kFailed = 1;

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IDimensionExpr;
using nvinfer1::PluginTensorDesc;

inline void report(const char* op, const char* what) { std::fprintf(stderr, "tmdeploy %s: %s\n", op, what); }

// Run `action`, which returns a value or throws; noexcept code goes on with `otherwise`.
template <class Action, class Value>
Value guarded(const char* op, Value otherwise, Action action) noexcept {
  try {
    return action();
  } catch (const std::exception& error) {
    report(op, error.what());
  } catch (...) {
    report(op, "unknown failure");
  }
  return otherwise;
}

inline void require(bool condition, const char* what) {
  if (!condition) throw PluginError(what);
}

inline Dtype element_type(DataType type) {
  switch (type) {
    case DataType::kFLOAT:
      return Dtype::kFloat32;
    case DataType::kHALF:
      return Dtype::kFloat16;
    case DataType::kBF16:
      return Dtype::kBFloat16;
    default:
      throw PluginError("a tensor has a type that is not float32, float16 or bfloat16");
  }
}

// What may stand at a position.
enum class Slot { kData, kFloat, kPlan, kCount };

inline bool allowed(Slot slot, DataType type) {
  switch (slot) {
    case Slot::kData:
      return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
    case Slot::kFloat:
      return type == DataType::kFLOAT;
    case Slot::kPlan:
      return type == DataType::kINT32;
    case Slot::kCount:
      return type == DataType::kINT64 || type == DataType::kINT32;
  }
  return false;
}

// Op: a copyable struct with
//   static constexpr const char* kName;
//   explicit Op(const Fields&);                            throws PluginError
//   attributes, a struct of op_attributes.h; input_count, kept beside them
//   std::vector<Slot> inputs(int count) const;             throws where that many inputs do not fit
//   static outputs(): std::vector<Slot>;  same_type(output): input whose type the output has, or -1
//   void output_shapes(const DimsExprs* in, DimsExprs* out) const;
//   std::size_t workspace(const DynamicPluginTensorDesc* in) const;
//   void run(in, out, const void* const* inputs, void* const* outputs, void* workspace, stream) const;   throws
template <class Op>
class TokenPlugin final : public nvinfer1::IPluginV3,
                          public nvinfer1::IPluginV3OneCore,
                          public nvinfer1::IPluginV3OneBuild,
                          public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit TokenPlugin(const Op& op) : op_(op) {}
  TokenPlugin(const TokenPlugin& other) : TokenPlugin(other.op_) {}  // the field list points into its own op
  TokenPlugin& operator=(const TokenPlugin&) = delete;

  // IPluginV3
  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override {
    return guarded(Op::kName, static_cast<nvinfer1::IPluginV3*>(nullptr),
                   [&]() -> nvinfer1::IPluginV3* { return std::make_unique<TokenPlugin>(*this).release(); });
  }

  // Core
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // Build
  std::int32_t getNbOutputs() const noexcept override {
    return guarded(Op::kName, 0, [&] { return static_cast<std::int32_t>(Op::outputs().size()); });
  }
  std::int32_t configurePlugin(const DynamicPluginTensorDesc* in, std::int32_t input_count,
                               const DynamicPluginTensorDesc* out, std::int32_t output_count) noexcept override {
    return guarded(Op::kName, kFailed, [&] {
      check_counts(input_count, output_count);
      require(in != nullptr && out != nullptr, "no tensor descriptions");
      const std::vector<Slot> slots = op_.inputs(input_count);
      for (std::int32_t i = 0; i < input_count; ++i)
        require(allowed(slots[static_cast<std::size_t>(i)], in[i].desc.type), "an input has the wrong type");
      op_.input_count = input_count;
      return 0;
    });
  }
  bool supportsFormatCombination(std::int32_t position, const DynamicPluginTensorDesc* tensors, std::int32_t input_count,
                                 std::int32_t output_count) noexcept override {
    return guarded(Op::kName, false, [&] {
      check_counts(input_count, output_count);
      require(tensors != nullptr && position >= 0 && position < input_count + output_count, "no such tensor");
      const PluginTensorDesc& desc = tensors[position].desc;
      if (desc.format != nvinfer1::TensorFormat::kLINEAR) return false;
      if (position < input_count) return allowed(op_.inputs(input_count)[static_cast<std::size_t>(position)], desc.type);
      const std::int32_t output = position - input_count;
      const std::int32_t same = Op::same_type(output);
      if (same >= 0) return desc.type == tensors[same].desc.type;
      return allowed(Op::outputs()[static_cast<std::size_t>(output)], desc.type);
    });
  }
  std::int32_t getOutputDataTypes(DataType* types, std::int32_t output_count, const DataType* input_types,
                                  std::int32_t input_count) const noexcept override {
    return guarded(Op::kName, kFailed, [&] {
      check_counts(input_count, output_count);
      require(types != nullptr && input_types != nullptr, "no types");
      for (std::int32_t i = 0; i < output_count; ++i) {
        const std::int32_t same = Op::same_type(i);
        types[i] = same >= 0 ? input_types[same]
                   : Op::outputs()[static_cast<std::size_t>(i)] == Slot::kPlan ? DataType::kINT32
                                                                               : DataType::kFLOAT;
      }
      return 0;
    });
  }
  std::int32_t getOutputShapes(const DimsExprs* inputs, std::int32_t input_count, const DimsExprs* /*shape_inputs*/,
                               std::int32_t shape_input_count, DimsExprs* outputs, std::int32_t output_count,
                               nvinfer1::IExprBuilder& /*builder*/) noexcept override {
    return guarded(Op::kName, kFailed, [&] {
      check_counts(input_count, output_count);
      require(shape_input_count == 0, "counts travel as dimensions, not as shape inputs");
      require(inputs != nullptr && outputs != nullptr, "no dimensions");
      op_.input_count = input_count;
      op_.output_shapes(inputs, outputs);
      return 0;
    });
  }
  std::size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, std::int32_t input_count,
                               const DynamicPluginTensorDesc* /*outputs*/,
                               std::int32_t /*output_count*/) const noexcept override {
    return guarded(Op::kName, static_cast<std::size_t>(0), [&] {
      require(inputs != nullptr, "no dimensions");
      static_cast<void>(op_.inputs(input_count));
      return op_.workspace(inputs);
    });
  }

  // Runtime
  std::int32_t onShapeChange(const PluginTensorDesc* in, std::int32_t input_count, const PluginTensorDesc* out,
                             std::int32_t output_count) noexcept override {
    return guarded(Op::kName, kFailed, [&] {
      check_counts(input_count, output_count);
      require(in != nullptr && out != nullptr, "no tensor descriptions");
      op_.input_count = input_count;
      return 0;
    });
  }
  std::int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out, const void* const* inputs,
                       void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
    return guarded(Op::kName, kFailed, [&] {
      require(in != nullptr && out != nullptr && inputs != nullptr && outputs != nullptr, "no tensors");
      op_.run(in, out, inputs, outputs, workspace, stream);
      return 0;
    });
  }
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* /*context*/) noexcept override {
    return clone();
  }
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    return guarded(Op::kName, static_cast<const nvinfer1::PluginFieldCollection*>(nullptr), [&] {
      fields_.clear();
      fields_.add_all(op_.attributes);
      fields_.add("input_count", op_.input_count);
      return fields_.collection();
    });
  }

 private:
  void check_counts(std::int32_t input_count, std::int32_t output_count) const {
    static_cast<void>(op_.inputs(input_count));
    require(output_count == static_cast<std::int32_t>(Op::outputs().size()), "wrong number of outputs");
  }

  Op op_;
  FieldList fields_;
};

template <class Op>
class TokenPluginCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  TokenPluginCreator() : fields_(field_names<decltype(Op::attributes)>()) {
    fields_.emplace_back("input_count", nullptr, nvinfer1::PluginFieldType::kINT32, 1);
    collection_.nbFields = static_cast<std::int32_t>(fields_.size());
    collection_.fields = fields_.data();
  }
  nvinfer1::IPluginV3* createPlugin(const char* /*name*/, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase /*phase*/) noexcept override {
    return guarded(Op::kName, static_cast<nvinfer1::IPluginV3*>(nullptr), [&]() -> nvinfer1::IPluginV3* {
      return std::make_unique<TokenPlugin<Op>>(Op(Fields(fields))).release();
    });
  }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

inline void require_rank(const nvinfer1::Dims& dims, std::int32_t rank) {
  require(dims.nbDims == rank, "a tensor has the wrong number of dimensions");
}

// Every tensor of `count` has memory, unless it is empty.
inline void require_memory(const PluginTensorDesc* desc, const void* const* memory, std::int32_t count) {
  for (std::int32_t i = 0; i < count; ++i) {
    bool empty = false;
    for (std::int32_t d = 0; d < desc[i].dims.nbDims; ++d) {
      require(desc[i].dims.d[d] >= 0, "a dimension is not known");
      empty = empty || desc[i].dims.d[d] == 0;
    }
    require(empty || memory[i] != nullptr, "a tensor is null");
  }
}

inline bool same_dims(const nvinfer1::Dims& dims, std::initializer_list<std::int64_t> expected) {
  if (dims.nbDims != static_cast<std::int32_t>(expected.size())) return false;
  std::int32_t i = 0;
  for (const std::int64_t extent : expected)
    if (dims.d[i++] != extent) return false;
  return true;
}

}  // namespace tmdeploy::tensorrt
