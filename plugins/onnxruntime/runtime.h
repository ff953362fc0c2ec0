// What the ops need of ONNX Runtime's C interface. The C interface and not the C++ one: nothing throws in here, every
// failure is an OrtStatus.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_c_api.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "kernels/common/op_params.h"
#include "kernels/cpu/parallel.h"

namespace tmdeploy::ort {

// KernelInfoGetAllocator is of version 18, the oldest runtime that tmdeploy takes is 1.20. Asking for no more than that
// lets one library serve all of them.
constexpr std::uint32_t kApiVersion = 20;
static_assert(kApiVersion <= ORT_API_VERSION, "headers of ONNX Runtime 1.20 or later are needed");

const OrtApi& api();
void set_api(const OrtApi* api, const char* version);

// Before 1.24, ONNX Runtime crashes where it describes to shape inference an optional input that is left out as "".
bool infers_with_absent_inputs();

// Goes on only while things go well.
#define TMDEPLOY_RETURN_IF_ERROR(expression)            \
  do {                                                  \
    if (OrtStatusPtr status_ = (expression)) return status_; \
  } while (false)

OrtStatusPtr failure(OrtErrorCode code, const std::string& text) noexcept;

// What a kernel answered: null where it took its arguments.
OrtStatusPtr refusal(const char* op, const char* wrong);

// A dense tensor of the kernel's context; `data` is null for an input that is not given.
struct Tensor {
  static constexpr std::size_t kMostDims = 3;

  const void* data = nullptr;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::int64_t dims[kMostDims] = {};
  std::size_t rank = 0;

  explicit operator bool() const { return type != ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED; }
};

// `name` is for the message of a tensor whose rank is not `rank`.
OrtStatusPtr input(const OrtKernelContext* context, std::size_t index, std::size_t rank, const char* name, Tensor& out);
OrtStatusPtr optional_input(const OrtKernelContext* context, std::size_t index, std::size_t rank, const char* name,
                            Tensor& out);
OrtStatusPtr output(OrtKernelContext* context, std::size_t index, const std::int64_t* dims, std::size_t rank,
                    void** data);

template <class T>
OrtStatusPtr output(OrtKernelContext* context, std::size_t index, std::initializer_list<std::int64_t> dims, T*& data) {
  void* raw = nullptr;
  OrtStatusPtr status = output(context, index, dims.begin(), dims.size(), &raw);
  data = static_cast<T*>(raw);
  return status;
}

std::string describe(const Tensor& tensor);

Dtype dtype_of(ONNXTensorElementDataType type);

// The session's own threads.
cpu::ParallelFor parallel_of(const OrtKernelContext* context);

// Memory from the session's arena, given back at the end of the block.
class Scratch {
 public:
  explicit Scratch(OrtAllocator* allocator) : allocator_(allocator) {}
  ~Scratch() {
    if (memory_ != nullptr) allocator_->Free(allocator_, memory_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  OrtStatusPtr reserve(std::size_t bytes) {
    if (bytes == 0) return nullptr;
    memory_ = allocator_->Alloc(allocator_, bytes);
    return memory_ != nullptr ? nullptr : failure(ORT_FAIL, "tmdeploy: out of memory");
  }

  void* get() const { return memory_; }

 private:
  OrtAllocator* allocator_;
  void* memory_ = nullptr;
};

// An attribute of a node; what it does not carry stays as it is.
void attribute(const OrtKernelInfo* info, const char* name, std::int64_t& out);
void attribute(const OrtKernelInfo* info, const char* name, float& out);
void attribute(const OrtKernelInfo* info, const char* name, bool& out);

// A string attribute as the position of its value among `values`.
OrtStatusPtr choice(const OrtKernelInfo* info, const char* op, const char* name, const char* const* values,
                    std::size_t count, std::int32_t& out);

// All attributes of a node.
template <class Attributes>
OrtStatusPtr read_attributes(const OrtKernelInfo* info, const char* op, Attributes& out) {
  OrtStatusPtr status = nullptr;
  Attributes::each(out, [&](const char* name, auto& value) {
    using Value = std::decay_t<decltype(value)>;
    if (status != nullptr) return;
    if constexpr (std::is_enum_v<Value>) {
      auto position = static_cast<std::int32_t>(value);
      status = choice(info, op, name, Spelling<Value>::kAll, choice_count<Value>(), position);
      value = static_cast<Value>(position);
    } else {
      attribute(info, name, value);
    }
  });
  return status;
}

}  // namespace tmdeploy::ort
