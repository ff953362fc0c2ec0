#include <algorithm>
#include <cstdio>
#include <thread>

#include "onnxruntime/runtime.h"

namespace tmdeploy::ort {
namespace {

const OrtApi* g_api = nullptr;
bool g_infers_with_absent_inputs = false;

OrtStatusPtr read_info(const OrtTensorTypeAndShapeInfo* info, std::size_t rank, const char* name, Tensor& out) {
  TMDEPLOY_RETURN_IF_ERROR(api().GetTensorElementType(info, &out.type));
  TMDEPLOY_RETURN_IF_ERROR(api().GetDimensionsCount(info, &out.rank));
  if (out.rank != rank) {
    return failure(ORT_INVALID_ARGUMENT, std::string("tmdeploy: ") + name + " has " + std::to_string(out.rank) +
                                             " dimensions, not " + std::to_string(rank));
  }
  return api().GetDimensions(info, out.dims, rank);
}

}  // namespace

const OrtApi& api() { return *g_api; }

void set_api(const OrtApi* api, const char* version) {
  g_api = api;
  int major = 0;
  int minor = 0;
  g_infers_with_absent_inputs =
      version != nullptr && std::sscanf(version, "%d.%d", &major, &minor) == 2 && (major > 1 || minor >= 24);
}

bool infers_with_absent_inputs() { return g_infers_with_absent_inputs; }

OrtStatusPtr failure(OrtErrorCode code, const std::string& text) noexcept {
  return api().CreateStatus(code, text.c_str());
}

OrtStatusPtr refusal(const char* op, const char* wrong) {
  return wrong == nullptr ? nullptr : failure(ORT_INVALID_ARGUMENT, std::string(op) + ": " + wrong);
}

OrtStatusPtr optional_input(const OrtKernelContext* context, std::size_t index, std::size_t rank, const char* name,
                            Tensor& out) {
  out = Tensor{};
  std::size_t count = 0;
  TMDEPLOY_RETURN_IF_ERROR(api().KernelContext_GetInputCount(context, &count));
  if (index >= count) return nullptr;
  const OrtValue* value = nullptr;
  TMDEPLOY_RETURN_IF_ERROR(api().KernelContext_GetInput(context, index, &value));
  if (value == nullptr) return nullptr;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  TMDEPLOY_RETURN_IF_ERROR(api().GetTensorTypeAndShape(value, &info));
  OrtStatusPtr status = read_info(info, rank, name, out);
  api().ReleaseTensorTypeAndShapeInfo(info);
  if (status != nullptr) return status;
  void* data = nullptr;
  TMDEPLOY_RETURN_IF_ERROR(api().GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  out.data = data;
  return nullptr;
}

OrtStatusPtr input(const OrtKernelContext* context, std::size_t index, std::size_t rank, const char* name,
                   Tensor& out) {
  TMDEPLOY_RETURN_IF_ERROR(optional_input(context, index, rank, name, out));
  if (out) return nullptr;
  return failure(ORT_INVALID_ARGUMENT, std::string("tmdeploy: input ") + name + " is missing");
}

OrtStatusPtr output(OrtKernelContext* context, std::size_t index, const std::int64_t* dims, std::size_t rank,
                    void** data) {
  OrtValue* value = nullptr;
  TMDEPLOY_RETURN_IF_ERROR(api().KernelContext_GetOutput(context, index, dims, rank, &value));
  return api().GetTensorMutableData(value, data);
}

std::string describe(const Tensor& tensor) {
  std::string text = "[";
  for (std::size_t i = 0; i < tensor.rank; ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(tensor.dims[i]);
  }
  return text + "]";
}

Dtype dtype_of(ONNXTensorElementDataType type) {
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16) return Dtype::kFloat16;
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16) return Dtype::kBFloat16;
  return Dtype::kFloat32;
}

cpu::ParallelFor parallel_of(const OrtKernelContext* context) {
  // The session does not say how many threads it has; more groups of work than threads do no harm.
  static const std::int64_t width = std::max(1U, std::thread::hardware_concurrency());
  const auto run = [](void* opaque, std::int64_t count, cpu::ParallelFor::Task task, void* data) {
    struct Job {
      cpu::ParallelFor::Task task;
      void* data;
    } job{task, data};
    const auto call = [](void* user, std::size_t i) {
      const Job& mine = *static_cast<const Job*>(user);
      mine.task(mine.data, static_cast<std::int64_t>(i));
    };
    OrtStatusPtr status = api().KernelContext_ParallelFor(static_cast<const OrtKernelContext*>(opaque), call,
                                                          static_cast<std::size_t>(count), 0, &job);
    if (status != nullptr) {  // nothing ran: do it here
      api().ReleaseStatus(status);
      for (std::int64_t i = 0; i < count; ++i) task(data, i);
    }
  };
  return {const_cast<OrtKernelContext*>(context), run, width};
}

}  // namespace tmdeploy::ort
