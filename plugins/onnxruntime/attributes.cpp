#include <cstring>

#include "onnxruntime/runtime.h"

namespace tmdeploy::ort {
namespace {

// A missing attribute is a failed status; there is no way to ask first.
bool forgive(OrtStatusPtr status) {
  if (status == nullptr) return false;
  api().ReleaseStatus(status);
  return true;
}

}  // namespace

void attribute(const OrtKernelInfo* info, const char* name, std::int64_t& out) {
  std::int64_t value = 0;
  if (!forgive(api().KernelInfoGetAttribute_int64(info, name, &value))) out = value;
}

void attribute(const OrtKernelInfo* info, const char* name, float& out) {
  float value = 0;
  if (!forgive(api().KernelInfoGetAttribute_float(info, name, &value))) out = value;
}

void attribute(const OrtKernelInfo* info, const char* name, bool& out) {
  std::int64_t value = out ? 1 : 0;
  attribute(info, name, value);
  out = value != 0;
}

OrtStatusPtr choice(const OrtKernelInfo* info, const char* op, const char* name, const char* const* values,
                    std::size_t count, std::int32_t& out) {
  char text[64] = {};
  std::size_t size = 0;
  if (forgive(api().KernelInfoGetAttribute_string(info, name, nullptr, &size))) return nullptr;
  if (size <= sizeof text) {
    TMDEPLOY_RETURN_IF_ERROR(api().KernelInfoGetAttribute_string(info, name, text, &size));
    for (std::size_t position = 0; position < count; ++position) {
      if (std::strcmp(values[position], text) == 0) {
        out = static_cast<std::int32_t>(position);
        return nullptr;
      }
    }
  }
  return failure(ORT_INVALID_ARGUMENT, std::string(op) + ": unknown " + name + " '" + text + "'");
}

}  // namespace tmdeploy::ort
